"""Finished runs stay finished: keys survive moves, and every tutorial, not in its quick form, finds all its rows.

A tutorial is not run as a whole, for that takes minutes: only statements that ask a ledger, and those that they need.
"""
import ast
import json
import symtable
import sys
import types
from pathlib import Path
from unittest import mock

import matplotlib
import pandas as pd
import pytest
import yaml

from geoseg.core.errors import ConfigError
from geoseg.data import shared
from geoseg.data.pictures.images import FolderData
from geoseg.models import unet
from geoseg.training import ledger as ledgers
from geoseg.training import train as training
from geoseg.training.ledger import Ledger, default_values, run_key, unknown_defaults, with_changes
from geoseg.training.recipes import read_config, recipe_path, recipes

TUTORIALS = Path(__file__).resolve().parents[1] / 'nbs' / 'tutorials'
# tutorial, and the real data without which its rows are not asked for; the fullest form comes last
FORMS = [('geo_memory', ('naip',)), ('localization', ()), ('localization', ('naip',)), ('meshes', ()),
         ('natural_scenes', ('camvid',)), ('place_naip', ('naip',)), ('place_world', ()),
         ('real_ground', ('camvid', 'naip')), ('refiner', ()), ('refiner', ('zion',))]
NO_LEDGER = {'change_evidence', 'changes', 'label_loop', 'street_scenes', 'where_was_this_taken', 'whole_rasters',
             'outdated_maps', 'new_ground', 'your_data'}
STAND_INS = {'naip_pairs': lambda folder, *args: folder}  # it draws thousands of views, which only a training reads


class MissingRow(LookupError):
    "A run would be started."


class StrictLedger(Ledger):
    "A ledger that raises where a row is missing, and keeps what was asked for."
    all: list['StrictLedger'] = []

    def __init__(self, folder, name):
        super().__init__(folder, name)
        self.asked = set()
        self.all.append(self)

    def key(self, recipe, settings, *what):
        key = super().key(recipe, settings, *what)
        if key not in self:
            raise MissingRow(f'{self.name}.csv: no row {key}: {recipe}, {json.dumps(settings)}, {json.dumps(what)}')
        self.asked.add(key)
        return key


def no_training(recipe=None, *args, **kwargs):
    raise MissingRow(f'a training of {recipe} would start')


class Statement:
    "A top-level statement of a notebook: what it reads and what it changes."

    def __init__(self, node: ast.stmt):
        self.node, self.defines = node, isinstance(node, (ast.FunctionDef, ast.ClassDef))
        table = symtable.symtable(ast.unparse(node), 'cell', 'exec')
        self.changes = {s.get_name() for s in table.get_symbols() if s.is_assigned() or s.is_imported()}
        self.reads = {s.get_name() for s in table.get_symbols() if s.is_referenced()}
        inner = list(table.get_children())
        while inner:
            part = inner.pop()
            self.reads |= {s.get_name() for s in part.get_symbols() if s.is_global()}
            inner += part.get_children()
        targets = [n.target for n in ast.walk(node) if isinstance(n, ast.For)] if isinstance(node, ast.For) else []
        self.reads -= {n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)}
        self.binds = set()  # whatever was there before
        if self.defines or isinstance(node, (ast.Assign, ast.Import, ast.ImportFrom)):
            self.binds = self.changes - (set() if self.defines else self.reads)
        if not self.defines:  # x[…] = …, x.y = …, x.append(…)
            for part in ast.walk(node):
                if isinstance(part, ast.Expr) and isinstance(part.value, ast.Call):
                    self.changes = self.changes | root(part.value.func)
                elif isinstance(part, (ast.Subscript, ast.Attribute)) and isinstance(part.ctx, ast.Store):
                    self.changes = self.changes | root(part)

    def asks(self, named: set[str]) -> bool:
        "Whether it calls `key` or `table` of a ledger."
        calls = (n.func for n in ast.walk(self.node) if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute))
        return any(f.attr in ('key', 'table') and (root(f) & named or is_ledger(f.value)) for f in calls)


def root(node: ast.expr) -> set[str]:
    "The name that x[…].y… begins with."
    while isinstance(node, (ast.Subscript, ast.Attribute)):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def is_ledger(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and root(node.func) == {'Ledger'}


def asking(sources: list[str]) -> list[ast.stmt]:
    "The statements that ask a ledger, and those that they need, in their order."
    statements = [Statement(node) for source in sources for node in ast.parse(source).body]
    defined = {name: s for s in statements if s.defines for name in s.changes}
    named = {name for s in statements for n in ast.walk(s.node) if isinstance(n, ast.Assign)
             if any(map(is_ledger, ast.walk(n.value))) for name in s.changes}

    def behind(statement: Statement) -> set[str]:
        "What it reads, in the functions that it calls too."
        reads, new = set(), set(statement.reads)
        while new:
            reads |= new
            new = {name for known in new & set(defined) for name in defined[known].reads} - reads
        return reads

    reads = [behind(s) for s in statements]
    asks = [s.asks(named) or any(defined[name].asks(named) for name in read & set(defined))
            for s, read in zip(statements, reads, strict=True)]
    waiting = [i for i, s in enumerate(statements) if asks[i] and not s.defines]
    kept = set()
    while waiting:
        kept.add(at := waiting.pop())
        needed = set(reads[at])
        for i in range(at - 1, -1, -1):
            if statements[i].changes & needed:
                needed -= statements[i].binds
                if i not in kept:
                    waiting.append(i)
    return [statements[i].node for i in sorted(kept) if not statements[i].changes & set(STAND_INS)]


def ask_all(tutorial: str, data: tuple[str, ...]) -> list[StrictLedger]:
    "Run what asks the ledgers of a tutorial; only these real data are there."
    notebook = json.loads((TUTORIALS / f'{tutorial}.ipynb').read_text(encoding='utf-8'))
    cells = [''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code']
    folder = shared.shared_data
    StrictLedger.all = []
    space = {'__name__': tutorial, 'display': lambda *shown: None, **STAND_INS}
    with (mock.patch.object(ledgers, 'Ledger', StrictLedger), mock.patch.object(training, 'train', no_training),
          mock.patch.object(shared, 'shared_data', lambda name: folder(name) if name in data else None)):
        for node in asking(cells):
            exec(compile(ast.Module([node], []), f'{tutorial}.ipynb', 'exec'), space)
    return StrictLedger.all


@pytest.fixture
def drawn_nowhere():
    backend = matplotlib.get_backend()
    matplotlib.use('agg')
    yield
    matplotlib.pyplot.close('all')
    matplotlib.use(backend)


def find_rows(form: tuple[str, tuple[str, ...]], monkeypatch):
    "Every run that is asked for has a row, and in the fullest form every row is asked for."
    tutorial, data = form
    monkeypatch.chdir(TUTORIALS)
    keys = {key for ledger in ask_all(tutorial, data) for key in ledger.asked}
    assert keys
    if form == [f for f in FORMS if f[0] == tutorial][-1]:
        kept = {key for path in Path('results').glob(f'{tutorial}*.csv')
                if path.stem == tutorial or path.stem.startswith(f'{tutorial}_')
                for key in pd.read_csv(path, dtype={'key': str})['key']}
        assert kept == keys
        assert {p.stem.rpartition('_')[2] for p in Path('results').glob(f'{tutorial}_*.npz')} <= keys


def form_name(form):
    return ' with '.join([form[0], *form[1]])


@pytest.mark.parametrize('form', [form for form in FORMS if not form[1]], ids=form_name)
def test_tutorial_finds_its_rows(form, monkeypatch, drawn_nowhere):
    find_rows(form, monkeypatch)


@pytest.mark.parametrize('form', [form for form in FORMS if form[1]], ids=form_name)
def test_tutorial_on_real_data_finds_its_rows(form, real_data, monkeypatch, drawn_nowhere):
    for name in form[1]:
        real_data(name)
    find_rows(form, monkeypatch)


def test_every_tutorial_with_a_ledger_is_tried():
    tutorials = {path.stem: path.read_text(encoding='utf-8') for path in TUTORIALS.glob('*.ipynb')}
    assert {name for name, text in tutorials.items() if 'Ledger' in text} == {name for name, _ in FORMS}
    assert set(tutorials) - {name for name, _ in FORMS} == NO_LEDGER


def test_a_missing_row_is_an_error(monkeypatch, drawn_nowhere):
    monkeypatch.chdir(TUTORIALS)
    monkeypatch.setattr(ledgers, 'known_defaults', lambda: {'NoMeFormer': {'num_heads': 8}})
    with pytest.raises(MissingRow, match='meshes.csv: no row .*nomeformer'):
        ask_all('meshes', ())


@pytest.fixture
def recipe(tmp_path):
    "Write a recipe, with some settings changed, under one name; its path."
    def write(changes=None) -> str:
        path = tmp_path / 'unet.yaml'
        path.write_text(json.dumps(with_changes(read_config(recipe_path('unet')), changes or {})), encoding='utf-8')
        return str(path)

    return write


NETWORK = 'model.init_args.network'
UNET = f'{NETWORK}.init_args'
JITTER = 'data.init_args.augment.color_jitter'


def test_a_moved_class_keeps_the_key(recipe, monkeypatch):
    class UNet(unet.UNet):
        def __init__(self, num_classes: int, channels: int = 3, encoder: str = 'resnet34', pretrained: bool = False,
                     dropout: float = 0.1, decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)):
            raise NotImplementedError

    elsewhere = types.ModuleType('geoseg.models.elsewhere')
    elsewhere.UNet = UNet
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    key, typed = run_key(recipe(), {}), run_key(recipe(), {f'{NETWORK}.class_path': 'geoseg.models.unet.UNet'}, 0)
    assert run_key(recipe({f'{NETWORK}.class_path': 'geoseg.models.elsewhere.UNet'}), {}) == key
    assert run_key(recipe(), {f'{NETWORK}.class_path': 'geoseg.models.elsewhere.UNet'}, 0) == typed
    loss = [{'model.init_args.loss': {'class_path': path}} for path in ('geoseg.tasks.losses.CrossEntropyLoss',
                                                                       'geoseg.tasks.losses.CrossEntropyLoss')]
    assert run_key(recipe(), loss[0]) == run_key(recipe(), loss[1]) != key
    assert run_key(recipe({f'{NETWORK}.class_path': 'geoseg.models.deeplab.FCN'}), {}) != key


@pytest.mark.parametrize('changes', [
    {f'{UNET}.decoder_channels': [256, 128, 64, 32, 16]}, {'model.init_args.boundary': None},
    {'data.init_args.augment.gamma_p': 0.5}, {'data.init_args.block': 50.0}, {f'{UNET}.dropout': 'absent'},
    {'model.init_args.schedule.init_args': 'absent'}, {'trainer.max_epochs': 3}])
def test_what_changes_nothing_keeps_the_key(recipe, changes):
    assert run_key(recipe(changes), {'lr': 1e-3}, 'naip') == run_key(recipe(), {'lr': 1e-3}, 'naip')


@pytest.mark.parametrize('changes', [
    {f'{UNET}.decoder_channels': [64, 32, 16, 8, 8]}, {'model.init_args.boundary': 2}, {JITTER: 'absent'},
    {'data.init_args.augment.gamma_p': 0.4}, {f'{UNET}.dropout': 0.2}, {'model.init_args.schedule': 'absent'},
    {'model.init_args.schedule.init_args.warmup_epochs': 4}])
def test_a_changed_value_changes_the_key(recipe, changes):
    key = run_key(recipe(), {})
    assert run_key(recipe(changes), {}) != key
    assert run_key(recipe(), {}) == key


def test_a_changed_default_changes_the_key(recipe, monkeypatch):
    "A run without the setting is another run; a recipe that says the old value is the same."
    def init(self, num_classes: int, channels: int = 3, encoder: str = 'resnet34', pretrained: bool = False,
             dropout: float = 0.5, decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16)):
        raise NotImplementedError

    said, unsaid = run_key(recipe({f'{UNET}.dropout': 0.1}), {}), run_key(recipe({f'{UNET}.dropout': 'absent'}), {})
    assert said == unsaid
    monkeypatch.setattr(unet.UNet, '__init__', init)
    assert run_key(recipe({f'{UNET}.dropout': 'absent'}), {}) != unsaid
    assert run_key(recipe({f'{UNET}.dropout': 0.5}), {}) != said  # recipe and class changed at once
    assert run_key(recipe({f'{UNET}.dropout': 0.1}), {}) == said


def test_a_new_parameter_keeps_the_key_and_asks_for_a_line(recipe, monkeypatch):
    def init(self, num_classes: int, channels: int = 3, encoder: str = 'resnet34', pretrained: bool = False,
             dropout: float = 0.1, decoder_channels: tuple[int, ...] = (256, 128, 64, 32, 16), norm: str = 'batch'):
        raise NotImplementedError

    key = run_key(recipe(), {})
    assert unknown_defaults() == {}
    monkeypatch.setattr(unet.UNet, '__init__', init)
    assert run_key(recipe(), {}) == run_key(recipe({f'{UNET}.norm': 'batch'}), {}) == key
    assert run_key(recipe({f'{UNET}.norm': 'group'}), {}) != key
    assert unknown_defaults() == {'UNet': {'norm': 'batch'}}


def test_a_base_behind_kwargs_has_defaults_too():
    defaults = default_values(FolderData)
    assert (defaults['image_dir'], defaults['split'], defaults['ratios']) == ('images', 'auto', [7, 2, 1])
    assert 'root' not in defaults and 'layout' not in defaults


def test_a_method_decides_when_it_is_chosen(tmp_path):
    recipe, loss = 'wildscenes-mask2former', 'methods.2.model.init_args.loss.init_args.weights'
    first, second = run_key(recipe, {}), run_key(recipe, {'method': 2})
    assert run_key(recipe, {'method': 1}) == run_key(recipe, {'run.method': 1}) == first != second
    assert run_key(recipe, {}, changed={loss: [1.0, 1.0]}) == first
    assert run_key(recipe, {'method': 2}, changed={loss: [1.0, 1.0]}) != second
    with pytest.raises(ConfigError, match='3 is not accepted'):
        run_key(recipe, {'method': 3})


def test_a_row_of_an_older_recipe_is_found(recipe, tmp_path, capsys):
    path, settings = recipe(), {'lr': 1e-3}
    oldest, older, today = {f'{UNET}.encoder': 'resnet18', JITTER: None}, {JITTER: None}, {}
    keys = [run_key(recipe(changes), settings, 'naip', 0) for changes in (oldest, older, today)]
    assert len(set(keys)) == 3
    for i, key in enumerate(keys[:2]):
        Ledger(tmp_path, 'demo').add(key, {'mIoU': 0.1 * i}, curves=pd.DataFrame({'loss': [1.0]}))
    path = recipe(today)
    assert Ledger(tmp_path, 'demo').key(path, settings, 'naip', 0) == keys[2]  # nothing is listed
    listed = [{f'{UNET}.encoder': 'resnet18'}, {JITTER: None}]  # the newest change last
    (tmp_path / 'older.yaml').write_text(json.dumps({'unet': listed}), encoding='utf-8')

    ledger = Ledger(tmp_path, 'demo')
    assert ledger.key(path, settings, 'naip', 0) == keys[1]
    assert ledger.key(path, settings, 'naip', 1) not in ledger
    [row] = ledger.older_rows().to_dict('records')
    assert row == {'key': keys[1], 'recipe': path, 'made_with': {JITTER: None}, 'now': keys[2]}
    assert capsys.readouterr().out == f'demo: rows by an older recipe: unet with {{"{JITTER}": null}}\n'

    table = pd.read_csv(tmp_path / 'demo.csv')
    table[table['key'] == keys[0]].to_csv(tmp_path / 'demo.csv', index=False)
    ledger = Ledger(tmp_path, 'demo')
    assert ledger.key(path, settings, 'naip', 0) == keys[0]
    assert ledger.older_rows()['made_with'].tolist() == [{JITTER: None, f'{UNET}.encoder': 'resnet18'}]

    ledger.add(keys[0], {'mIoU': 0.9})  # made again, by the recipe of today
    assert ledger.older_rows().empty
    assert Ledger(tmp_path, 'demo').key(path, settings, 'naip', 0) == keys[2]
    assert ledger.table(keys=[keys[0], keys[2]])['mIoU'].tolist() == [0.0, 0.9]


def test_older_entries_of_a_wrong_form_are_errors(tmp_path):
    (tmp_path / 'older.yaml').write_text('unet: {dropout: 0.1}', encoding='utf-8')
    with pytest.raises(ValueError, match='older.yaml: unet: expected a list of changes'):
        Ledger(tmp_path, 'demo').key('unet', {})
    with pytest.raises(ValueError, match='seed_everything of the recipe is no section'):
        run_key('unet', {}, changed={'seed_everything.x': 1})


def test_older_entries_name_recipes():
    path = TUTORIALS / 'results' / 'older.yaml'
    assert set(yaml.safe_load(path.read_text(encoding='utf-8')) or {}) <= set(recipes())
