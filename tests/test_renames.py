"What was saved before classes moved: configurations, a run with its checkpoint, a shared network."
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from geoseg.evaluation.evaluate import evaluate
from geoseg.models.predictor import Predictor
from geoseg.training.config import parse
from geoseg.training.ledger import with_changes
from geoseg.training.recipes import read_config, recipe_path, recipes
from geoseg.training.run import Run
from geoseg.training.train import train

SAVED = Path(__file__).with_name('saved_before_the_move')
OLDER = yaml.safe_load((Path(__file__).parents[1] / 'nbs/tutorials/results/older.yaml').read_text(encoding='utf-8'))


@pytest.fixture
def run(tmp_path):
    'A copy of the saved run.'
    return Run(shutil.copytree(SAVED / 'deepglobe-trm', tmp_path / 'run'))


@pytest.mark.parametrize('recipe', recipes())
def test_a_configuration_means_what_it_meant(recipe):
    'But for what has changed in the recipe since, which stands in a list.'
    changes = {key: value for change in reversed(OLDER.get(recipe, [])) for key, value in change.items()}
    before = with_changes(read_config(recipe_path(recipe)), {'run.recipe': recipe, **changes})
    old, new = (parse([config], {'data': 'world:tiny'}).config.as_dict() for config in
                (SAVED / f'{recipe}.yaml', before))
    for config in (old, new):
        del config['config']  # the files that were read
    assert old == new


def test_what_people_type_means_what_it_meant():
    typed = {'data': 'world:tiny', 'loss.class_path': 'geoseg.tasks.losses.FocalLoss'}
    loss = parse(['unet'], typed).config.model.init_args.loss
    assert loss.class_path == 'geoseg.tasks.losses.FocalLoss'


def test_a_run_is_evaluated_and_goes_on(run):
    result = evaluate(run.folder, 'world:tiny', split='val', overrides={'trainer.enable_progress_bar': False})
    assert 0 <= result.scores['mIoU'] <= 1
    again = train(resume=run.best, data='world:tiny', epochs=2)
    assert again.folder == run.folder and again.metrics['epoch'].tolist() == [0, 1]


def test_a_shared_network_answers_as_its_checkpoint(run):
    shared, image = Predictor.from_pretrained(SAVED / 'deepglobe-trm-shared', 'cpu'), torch.rand(2, 3, 64, 64)
    assert torch.equal(shared.logits(image), run.predictor('cpu').logits(image))
