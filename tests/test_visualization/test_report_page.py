"""The page of a run, read as text and opened in a browser that has no network."""

import html
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from mmkernel.evaluation import Cloud, diagnose_cloud, probe_table
from mmkernel.evaluation.labels import Labels
from mmkernel.visualization.curves import Band, curves_of
from mmkernel.visualization.html_page import html_page, table, write_page
from mmkernel.visualization.report_page import RunReport, report_page

HEADINGS = ['Diagnosis', 'Curves', 'Benchmarks', 'Changes', 'Views', 'Embeddings', 'Neighbours', 'Next', 'Config']
HEALTHY, BLUE = (0, 158, 115), (0, 114, 178)  # of the badge, of the first curve


class Source:
    """Images of one grey level each."""

    classes = ['a', 'b', 'c']

    def image(self, i):
        return np.full((4, 4, 1), 2 * i, np.uint8)


def whole_report(folder):
    z = torch.randn(60, 16, generator=torch.Generator().manual_seed(0))
    cloud = Cloud(z, z, Labels(torch.arange(60) % 3, Source.classes), torch.arange(60), (z, z + 0.1), 'digest')
    Image.fromarray(np.full((80, 40, 3), 128, np.uint8)).save(folder / 'views.png')
    rows = [dict(name='trained <encoder>', width=16, scores={20: dict(top1=97.5, top5=99.5)})]
    line = np.linspace(1, 0, 5)
    return RunReport(
        name='digits & more',
        about=dict(recipe='configs/kernels/digits_rbf.py', seed=0),
        curves=curves_of([dict(step=10 * e, epoch=e, loss=1 / e, waiting=3.0) for e in range(1, 6)]),
        bands={'configs/kernels/digits_rbf.py, 3 seeds': {'loss': Band(np.arange(1, 6), line, line - 0.1, line + 0.1)}},
        recipe='configs/kernels/digits_rbf.py',
        changes=[('optim_wrapper.optimizer.lr', '0.1', '0.2')],
        views=folder / 'views.png',
        diagnosis=diagnose_cloud(cloud),
        cloud=cloud,
        source=Source(),
        tables=[('knn.json: epoch_5.pth', probe_table(rows, 'kNN'))],
        commands={'Beside another run:': 'mmkernel plot here there'},
        config="model = dict(type='<X>')\n",
    )


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp('page')
    return report_page(whole_report(folder), folder / 'report.html')


@pytest.fixture(scope='module')
def browser():
    for name in ('chromium', 'chromium-browser', 'google-chrome'):
        if found := shutil.which(name):
            return found
    pytest.skip('no browser here: apt-get install chromium')


def visit(browser, page, folder, *options):
    """What a browser without a network prints of the page."""
    flags = '--headless --no-sandbox --disable-gpu --hide-scrollbars --proxy-server=127.0.0.1:9 --window-size=1200,3600'
    unknown = '--host-resolver-rules=MAP * ~NOTFOUND'
    command = [browser, *flags.split(), unknown, f'--user-data-dir={folder / "profile"}', *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def words(markup):
    return html.unescape(re.sub(r'<style>.*?</style>|<[^>]+>', ' ', markup, flags=re.S))


def test_a_browser_shows_every_section(browser, page, tmp_path):
    seen = visit(browser, page, tmp_path, '--dump-dom')
    assert re.findall(r'<h2>(.*?)</h2>', seen) == HEADINGS
    assert re.findall(r'<h1>(.*?)</h1>', seen) == ['digits &amp; more']
    text = ' '.join(words(seen).split())
    for said in (
        'healthy the embedding uses', '60 images, width 16', 'optim_wrapper.optimizer.lr 0.1 0.2', 'trained <encoder> 16 97.5/99.5',
        'Grey: configs/kernels/digits_rbf.py, 3 seeds, mean (dashed) and range.', 'mmkernel plot here there',
        "model = dict(type='<X>')",
    ):  # fmt: skip
        assert said in text, said
    assert re.findall(r'<img alt="(.*?)"', seen) == [
        'curves of this run: loss, time spent waiting for data, %',
        'views of the first images',
        'covariance spectrum, alignment and uniformity, MMD by degree',
        'images and their nearest neighbours, and a map of all images',
    ]
    sources = re.findall(r'(?:src|href)\s*=\s*"([^"]*)"', seen)
    assert len(sources) == 4 + len(HEADINGS)
    assert all(source.startswith(('data:image/', '#')) for source in sources)
    assert '@import' not in seen
    assert 'url(' not in seen
    assert '<script' not in seen


def test_a_browser_draws_it(browser, page, tmp_path):
    """Not blank: the badge, and in the place of each picture pixels of several colours."""
    visit(browser, page, tmp_path, f'--screenshot={tmp_path / "page.png"}')
    pixels = np.asarray(Image.open(tmp_path / 'page.png').convert('RGB')).astype(int)
    assert pixels.shape[:2] == (3600, 1200)

    def rows_with(colour):
        return np.flatnonzero((np.abs(pixels - colour).max(-1) < 12).any(1))

    assert len(rows_with(HEALTHY)) > 100  # badge, and the bars and frames of a healthy run
    assert len(rows_with(BLUE)) > 30  # the curve
    assert len(rows_with((128, 128, 128))) >= 80  # views.png, and grey images
    inked = (pixels < 250).any(-1).any(1)
    assert inked.mean() > 0.4
    left, right = pixels[:, :20], pixels[:, -20:]
    assert (left == 255).all()  # nothing runs out of the page
    assert (right == 255).all()


def test_a_narrow_window_shows_the_whole_width(browser, page, tmp_path):
    visit(browser, page, tmp_path, '--window-size=520,4000', f'--screenshot={tmp_path / "narrow.png"}')
    pixels = np.asarray(Image.open(tmp_path / 'narrow.png').convert('RGB'))
    assert (pixels[:, -8:] > 240).all()  # nothing is cut off


def test_what_is_missing_has_no_section_or_says_why(tmp_path):
    bare = RunReport('bare', dict(seed=1), missing={'Curves': 'no scalars: looked <here>'})
    text = report_page(bare, tmp_path / 'report.html').read_text()
    assert re.findall(r'<h2>(.*?)</h2>', text) == ['Curves']
    assert 'no scalars: looked &lt;here&gt;' in text
    same = report_page(
        RunReport('same', {}, recipe='configs/kernels/digits_rbf.py'), tmp_path / 'same.html'
    ).read_text()
    assert 'None: this is <code>configs/kernels/digits_rbf.py</code> as it comes.' in same


def test_the_same_report_is_the_same_file(page, tmp_path):
    again = report_page(replace(whole_report(tmp_path)), tmp_path / 'again.html')
    assert again.read_bytes() == page.read_bytes()


def test_text_of_others_is_text(tmp_path):
    text = write_page(tmp_path / 'x.html', html_page('<b>', 'head', {'<i>': table(['<u>'], [['<s>']])})).read_text()
    assert not re.search(r'<[bius]>', text)
    assert text.count('&lt;') == 5  # title twice, heading, and two cells
