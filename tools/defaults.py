"""Write the settings of the recipes that are ours, geoseg/evaluation/own.csv, anew: for a change that was meant."""
from pathlib import Path

from geoseg.evaluation.published import build_all, changed_defaults, own_defaults, stored_defaults

if __name__ == '__main__':
    own = own_defaults(build_all())
    print('\n'.join(changed_defaults(own, stored_defaults())) or 'nothing has changed')
    path = Path(__file__).resolve().parents[1] / 'geoseg' / 'evaluation' / 'own.csv'
    own.to_csv(path, index=False, lineterminator='\n')
