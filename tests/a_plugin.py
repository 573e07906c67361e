"Classes of one's own: pictures beside their masks (a.png, a_mask.png), a network, a task, and an answer for arrays."
import numpy as np
import pandas as pd
import torch

from geoseg.core.files import png, write_whole
from geoseg.data.pictures.images import ImageData
from geoseg.inference.answer import Answer, paths_of
from geoseg.tasks.segmentation import SegmentationTask


class BesideData(ImageData):
    layout = 'beside'

    @classmethod
    def recognises(cls, root):
        return any(root.glob('*_mask.png'))

    def files(self, root, split=None):
        masks = sorted(root.glob('*_mask.png'))
        images = [path.with_name(path.name.replace('_mask', '')) for path in masks]
        names = [path.stem for path in images]
        return pd.DataFrame({'name': names, 'image': images, 'mask': masks, 'drive': 'all', 'time': np.nan})


class ColourNet(torch.nn.Module):
    def __init__(self, num_classes, channels=3, width=4):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(channels, width, 1), torch.nn.ReLU(),
                                          torch.nn.Conv2d(width, num_classes, 1))

    def forward(self, image):
        return {'logits': self.layers(image)}


class OwnTask(SegmentationTask):
    pass


class ArrayAnswer(Answer):
    kind, name = 'segmentation', 'arrays'

    @classmethod
    def files(cls, data, trained=None):
        paths = paths_of(data)
        return paths if paths and all(path.suffix == '.npy' for path in paths) else None

    def answer(self):
        predictor = self.trained.predictor(self.request, self.trained.settings())
        for path in self.found:
            image = torch.from_numpy(np.load(path)).permute(2, 0, 1)[None].float()
            write_whole(self.folder / f'{path.stem}.png', png(predictor.logits(image)[0].argmax(0).cpu().numpy()))
        return self.folder
