"""What the command line says before it imports anything heavy, and what it shows for help."""
import re
import subprocess
import sys

import pytest

import geoseg
from geoseg import cli
from geoseg.world.layouts import world_data

WRONG = {'recipe': ['--recipe', 'unet', 'data=nowhere'], 'checkpoint': ['--checkpoint', 'nowhere', 'data=nowhere'],
         'encoder': ['--checkpoint', 'nowhere', 'data=nowhere'],
         'data': ['data=nowhere'], 'either': ['--recipe', 'unet', 'data=nowhere'], 'nothing': ['data=nowhere']}
HEAVY = ('torch', 'lightning', 'numpy', 'pandas', 'jsonargparse', 'transformers', 'rasterio', 'cv2', 'matplotlib')
SCRIPT = """
import sys
from geoseg.cli import main
for line in sys.stdin.read().splitlines():
    print(main(line.split('\t')), line.split('\t')[0], *sorted({name.partition('.')[0] for name in sys.modules} & {%s}))
"""


def lines_and_imports(*lines):
    "Exit status, what was said and what of HEAVY was imported, of all lines in one fresh process."
    done = subprocess.run([sys.executable, '-c', SCRIPT % ', '.join(map(repr, HEAVY))], capture_output=True, text=True,
                          input='\n'.join('\t'.join(line) for line in lines), check=True)
    return done.stdout.splitlines(), done.stderr.splitlines()


def test_what_is_not_there_is_said_before_anything_heavy_is_imported(tmp_path):
    lines = [[name, *WRONG[verb.needs]] for name, verb in cli.VERBS.items()]
    lines += [['predct'], ['fit', '--recipe', 'unett'], ['fit', '--config', 'no.yaml'],
              ['fit', '--recipe', 'unet', 'resume=no'],
              ['test', '--checkpoint', str(tmp_path)], ['predict', '--checkpoint', 'no.ckpt'], ['fit'], ['predict'],
              ['fit', '--recipe', 'unet', 'data={train: here, val: nowhere}'], ['help', 'predct'], ['predct', '--help']]
    ended, said = lines_and_imports(*lines)
    assert ended == [f'2 {line[0]}' for line in lines]
    assert len(said) == len(lines)
    for line, message in zip(lines, said, strict=True):
        assert message.startswith(f'geoseg {line[0]}: '), message
    for message in said[:len(cli.VERBS)]:
        assert 'nowhere' in message or "unknown setting 'data'" in message


def test_help_needs_nothing_heavy():
    lines = [['help'], ['--help'], ['--version'], *(['help', name] for name in cli.VERBS),
             *([name, '--help'] for name in cli.VERBS), ['fit', '-h']]
    ended, said = lines_and_imports(*lines)
    assert not said and [line for line in ended if line[:2] == '0 ' and line.split()[1] == 'help'][0] == '0 help'
    assert not [line for line in ended if line.partition(' ')[2] in HEAVY]


def test_each_setting_of_each_verb_has_a_line_that_says_what_it_is(capsys):
    for name, verb in cli.VERBS.items():
        assert cli.main([name, '--help']) == 0
        shown = capsys.readouterr().out
        assert verb.run.__doc__ and re.search(rf'^  {name} +{re.escape(verb.run.__doc__)}$', cli.usage(), re.M)
        for parameter in verb.signature.parameters:
            [line] = [line for line in shown.splitlines() if line.startswith(f'  {parameter.name}=')]
            assert parameter.comment, f'{name}: {parameter.name} has no comment'
            assert len(line.split(maxsplit=1)) == 2 and 'None' not in line


def test_a_default_that_is_shown_can_be_typed():
    for verb in cli.VERBS.values():
        for parameter in verb.signature.parameters:
            if parameter.default is not None:
                assert parameter.name in cli.sort_words([cli.as_typed(parameter)]).overrides


def test_version(capsys):
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out == f'geoseg {geoseg.__version__}\n'


@pytest.mark.parametrize('words, says', [
    ('predct --help', "unknown verb 'predct'; nearest: predict"),
    ('localize --checkpoint {run} photo=x', "unknown setting 'photo'; nearest: photos; there are photos, gallery"),
    ('localize --checkpoint {run}', 'photos is missing: photos=FOLDER'),
    ('recipes writ=1', "unknown setting 'writ'; recipes takes none"),
    ('fit --recipe unet --checkpoint {run}', 'fit takes --recipe, no --checkpoint: resume=RUN goes on'),
    ('sweep --recipe unet --config {run}/config.yaml', 'sweep takes a recipe and settings, no --config'),
    ('test --checkpoint {run} split=train', 'split: test says it already'),
    ('test --checkpoint {run}/..', 'a run is one of its folders, such as'),
    ('fit --recipe unet data={run}/config.yml', 'no such file or folder; nearest: config.yaml'),
])
def test_a_mistake_names_its_remedy(tiny_run, capsys, words, says):
    assert cli.main([word.format(run=tiny_run('unet')) for word in words.split()]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and says in said[0]


@pytest.mark.parametrize('name', [name for name, verb in cli.VERBS.items() if not verb.alone])
def test_a_misspelt_setting_suggests_one_of_the_verb(tiny_run, tmp_path, capsys, monkeypatch, name):
    'Before any work: no folder is made.'
    monkeypatch.chdir(tmp_path)
    verb = cli.VERBS[name]
    wanted = {'predict': 'write'}.get(name) or [p.name for p in verb.signature.parameters if p.name != 'data'][0]
    words = ['--recipe', 'unet', 'data=world:tiny'] if verb.needs in ('recipe', 'either', 'data') else [
        '--checkpoint', str(tiny_run('deepglobe-trm' if name == 'halt-cal' else 'unet'))]
    assert cli.main([name, *words, f'{wanted[:-1]}{wanted[-1] * 2}=3']) == 2
    assert capsys.readouterr().err == (f"geoseg {name}: unknown key '{wanted[:-1]}{wanted[-1] * 2}'; "
                                       f'nearest: {wanted}\n')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('layout, recipe', [('geotagged', 'unet'), ('mesh', 'nomeformer'),
                                            ('gta', 'game4loc-cross-area')])
def test_inspect_needs_no_recipe(tmp_path, capsys, layout, recipe):
    out = tmp_path / 'out'
    assert cli.main(['inspect', f'data={world_data(layout, size="tiny")}', f'out={out}']) == 0
    shown = capsys.readouterr().out.splitlines()
    whole = (out / 'remarks.txt').read_text().splitlines()
    assert f'with the settings of {recipe}; --recipe names another' in whole and len(shown) <= 10
    assert shown[-1] == whole[-1] and shown[-1].startswith(f'next: geoseg fit --recipe {recipe} data=')
    shown = whole
    assert (f'{out / "overlay.png"} shows a picture with its mask over it' in shown) == (layout == 'geotagged')
    assert (out / 'overlay.png').exists() == (layout == 'geotagged')


def test_a_reader_that_has_read_enough_is_no_error():
    for words in (['help'], ['fit', '--help'], ['recipes']):
        process = subprocess.Popen([sys.executable, '-m', 'geoseg.cli', *words], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        process.stdout.close()  # as `| true`
        assert process.stderr.read() == b'' and process.wait() == 141
