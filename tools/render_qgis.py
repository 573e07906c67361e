"""QGIS opens a project and draws it with its legend, without a window; what it has read is printed as JSON.

For the Python that has QGIS (Debian: `python3-qgis`): /usr/bin/python3 tools/render_qgis.py results.qgz picture.png
"""
import json
import os
import sys
from pathlib import Path

os.environ.setdefault('QT_QPA_PLATFORM', 'offscreen')

from qgis.core import (  # noqa: E402
    QgsApplication,
    QgsLayoutExporter,
    QgsLayoutItemLegend,
    QgsLayoutItemMap,
    QgsLayoutPoint,
    QgsLayoutSize,
    QgsPrintLayout,
    QgsProject,
    QgsRasterLayer,
    QgsVectorLayer,
)


def names_and_colors(layer):
    'What the legend of a layer says: name -> colour.'
    renderer = layer.renderer()
    if renderer.type() == 'categorizedSymbol':
        return {c.label(): c.symbol().color().name() for c in renderer.categories()}
    if renderer.type() == 'paletted':
        return {c.label: c.color.name() for c in renderer.classes()}
    return {}


def describe(layer):
    return {'valid': layer.isValid(), 'renderer': layer.renderer().type(), 'crs': layer.crs().authid(),
            'legend': names_and_colors(layer)}


def draw(project, target, width, height):
    'A page with map and legend.'
    layout = QgsPrintLayout(project)
    layout.initializeDefaults()
    layout.pageCollection().page(0).setPageSize(QgsLayoutSize(width, height))
    picture, legend = QgsLayoutItemMap(layout), QgsLayoutItemLegend(layout)
    layout.addLayoutItem(picture)
    layout.addLayoutItem(legend)
    picture.attemptMove(QgsLayoutPoint(2, 2))
    picture.attemptResize(QgsLayoutSize(height - 4, height - 4))
    shown = [node.layer() for node in project.layerTreeRoot().findLayers() if node.isVisible()]
    picture.setCrs(project.crs())
    picture.setLayers(shown)
    picture.setKeepLayerSet(True)
    picture.setExtent(shown[-1].extent())
    legend.setAutoUpdateModel(False)
    for node in project.layerTreeRoot().findLayers():  # what the map shows, but for the bands of the imagery
        if not node.isVisible() or node.layer() == shown[-1]:
            legend.model().rootGroup().removeLayer(node.layer())
    legend.attemptMove(QgsLayoutPoint(height + 2, 2))
    legend.adjustBoxSize()
    settings = QgsLayoutExporter.ImageExportSettings()
    settings.dpi, settings.generateWorldFile, settings.exportMetadata = 100, False, False
    return QgsLayoutExporter(layout).exportToImage(target, settings)


def main(path, target, width=235, height=165):
    application = QgsApplication([], True)
    application.initQgis()
    project, folder = QgsProject.instance(), Path(path).resolve().parent
    read = project.read(str(Path(path).resolve()))
    nodes = project.layerTreeRoot().findLayers()
    found = {'read': read, 'crs': project.crs().authid(),
             'layers': [{'name': node.name(), 'shown': node.isVisible(), **describe(node.layer())} for node in nodes],
             'alone': {file.name: describe(QgsVectorLayer(str(file), file.stem, 'ogr') if file.suffix == '.gpkg'
                                           else QgsRasterLayer(str(file), file.stem))
                       for file in sorted(folder.glob('*_*')) if file.suffix in ('.tif', '.gpkg')},
             'drawn': draw(project, target, float(width), float(height)) == QgsLayoutExporter.Success}
    print(json.dumps(found))
    sys.stdout.flush()
    os._exit(0)  # its destructors need an order that Python does not keep


if __name__ == '__main__':
    main(*sys.argv[1:])
