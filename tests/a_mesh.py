"A mesh that several tests take."
import numpy as np

from geoseg.data.meshes.files import Mesh


def grid(n, name='grid', z=0.):
    'A square of 2 n² faces with labels.'
    x, y = (a.ravel() for a in np.meshgrid(np.arange(n + 1.), np.arange(n + 1.)))
    i = (np.arange(n)[:, None] * (n + 1) + np.arange(n)).ravel()
    faces = np.concatenate([np.stack([i, i + 1, i + n + 2], 1), np.stack([i, i + n + 2, i + n + 1], 1)])
    return Mesh(np.stack([x, y, 0 * x + z], 1), faces, np.arange(len(faces)) % 2, name=name)
