"A training that a person watches: what is shown, that it changes nothing, and the stop button."
import os
import re
import signal
from types import SimpleNamespace

import pytest
import tiny
from tiny import same_state

import geoseg
from geoseg.core import signals
from geoseg.core.notebooks import person_watches
from geoseg.training import callbacks, live, train


@pytest.fixture
def shown(monkeypatch):
    "A cell of JupyterLab: what it displays, by its place."
    from IPython import display
    places = []

    def show(content, display_id=False):
        places.append([content])
        return SimpleNamespace(update=places[-1].append)

    monkeypatch.setattr(display, 'display', show)
    for module in (train, signals):
        monkeypatch.setattr(module, 'in_notebook', lambda: True)
    monkeypatch.setattr(train, 'person_watches', lambda: True)
    monkeypatch.setattr(live.LiveProgress.__init__, '__defaults__', (0., 1e9))  # drawn each time
    clock = SimpleNamespace(monotonic=iter(range(100, 10 ** 9)).__next__)
    for module in (callbacks, live):
        monkeypatch.setattr(module, 'time', clock)
    return places


@pytest.mark.parametrize('recipe', ['unet', 'geosegformer'])
def test_to_look_changes_nothing(recipe, shown, tmp_path):
    changes = {'trainer.enable_progress_bar': None, 'trainer.limit_train_batches': 2, 'trainer.limit_val_batches': 1}
    watched = tiny.train(recipe, tmp_path / 'watched', **changes)
    bar, curves, pictures = shown
    texts = [html.data for html in bar]
    assert any(re.search(r' so far, about \d+ (s|min) left', text) for text in texts), texts
    epochs = len(watched.metrics)
    assert len(pictures) == epochs and len(curves) > epochs
    assert all(picture.data.startswith(b'\x89PNG') for picture in curves + pictures)
    assert len({picture.data for picture in curves}) > epochs
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, 'in_notebook', lambda: False)
        alone = tiny.train(recipe, tmp_path / 'alone', **changes)
    assert len(shown) == 3
    same_state(watched.last, alone.last)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (watched.folder / name).read_bytes() == (alone.folder / name).read_bytes(), name


def test_papermill_shows_the_bar_alone(shown, tmp_path, monkeypatch):
    monkeypatch.setattr(train, 'person_watches', person_watches)  # nobody does, here
    tiny.train('unet', tmp_path, epochs=1, **{'trainer.enable_progress_bar': None})
    [bar] = shown
    assert not any('left' in html.data for html in bar)


@pytest.mark.parametrize('presses', [1, 2])
def test_the_stop_button_keeps_the_run(presses, shown, tmp_path, monkeypatch):
    "What the message says goes on, and the weights are those of a run that was never stopped."
    changes = {'epochs': 3, 'trainer.enable_progress_bar': None}
    whole = tiny.train('unet', tmp_path / 'whole', **changes)
    ours = callbacks.SeedBatches.on_train_batch_start

    def press(self, trainer, pl_module, batch, batch_idx):
        ours(self, trainer, pl_module, batch, batch_idx)
        if (trainer.current_epoch, batch_idx) == (1, 1):
            for _ in range(presses):
                os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt) as stopped:
            patch.setattr(callbacks.SeedBatches, 'on_train_batch_start', press)
            tiny.train('unet', tmp_path / 'cut', **changes)
    finally:
        signal.signal(signal.SIGINT, before)
    said = str(stopped.value)
    assert stopped.value._render_traceback_() == [said]
    code, folder = re.fullmatch(r'stopped; to go on: (geoseg\.train\(.*\)) in a cell, or geoseg fit resume=(\S+) in a '
                                r'terminal', said).groups()
    done = geoseg.Run(folder)
    assert len(done.metrics) == 1 and done.last.is_file()
    run = eval(code)  # noqa: S307  (as a person would)
    assert str(run.folder) == folder
    same_state(whole.last, run.last)
    for name in ('metrics.csv', 'per_class.csv'):
        assert (whole.folder / name).read_bytes() == (run.folder / name).read_bytes(), name
