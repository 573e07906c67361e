"Photos of the drawn world beside its map, on which they were placed: nbs/images/places.jpg of the README."
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import shapely
from confidence import SHAPE, draw_camera, map_of

from geoseg.inference.places.encoder import TileEncoder
from geoseg.inference.places.place_photos import find_photo
from geoseg.world.noise import random_stream
from geoseg.world.photos import MAPPED
from geoseg.world.world import draw_world

TARGET = Path(__file__).parent.parent / 'nbs/images/places.jpg'


def main():
    world, encoder, rng, photos = draw_world(0), TileEncoder(), np.random.default_rng(5), []
    while len(photos) < 4:
        width, camera = draw_camera(rng, world)
        if camera is not None and width > 200:
            photos.append(world.view(MAPPED, camera, SHAPE, random_stream(0, 'readme', len(photos)))[0])
    with tempfile.TemporaryDirectory() as folder:
        known = map_of(world, Path(folder))
        places = [find_photo(photo, known, encoder) for photo in photos]
    figure, axes = plt.subplot_mosaic([['map', 'map', 0, 1], ['map', 'map', 2, 3]], figsize=(9, 4), dpi=100,
                                      layout='constrained')
    axes['map'].imshow(world.images[MAPPED], extent=(0, 1024, -1024, 0))
    for number, (photo, found) in enumerate(zip(photos, places, strict=True)):
        axes[number].imshow(photo)
        if found.on_map:
            axes['map'].plot(*shapely.Polygon(found.placement.outline).exterior.xy, color=f'C{number}', lw=2)
            axes[number].set_title(f'heading {found.placement.heading:.0f}°, confidence {found.confidence:.2f}',
                                   fontsize=8)
        else:
            axes[number].set_title('not on this map', fontsize=8)
        axes[number].spines[:].set(color=f'C{number}', linewidth=3)
        axes[number].set(xticks=[], yticks=[])
    axes['map'].set(xlabel='metres east', ylabel='metres north')
    figure.savefig(TARGET, pil_kwargs={'quality': 80})


if __name__ == '__main__':
    main()
