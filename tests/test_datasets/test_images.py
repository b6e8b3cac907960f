import io
import tarfile

import numpy as np
import pytest
from photographs import photograph
from PIL import Image
from test_datasets.test_sources import Mine

from mmkernel.datasets import CorruptImageError, EvaluationDataset, ImageFolder, Subset, decode
from mmkernel.datasets.images import scaled, to_array
from mmkernel.datasets.sample_checks import check_samples
from mmkernel.registry import DATASETS


def encoded(image, kind='PNG', **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture
def rgb():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8))


@pytest.mark.parametrize('mode', ['RGB', 'L', '1', 'P', 'RGBA', 'LA'])
def test_pixel_modes_equal_pillows_convert(rgb, mode):
    image = rgb.convert(mode)
    array = decode(encoded(image), 'x')
    assert array.dtype == np.uint8
    assert array.shape == (9, 13, 3)
    assert np.array_equal(array, np.asarray(image.convert('RGB')))


def test_cmyk_jpeg(rgb):
    data = encoded(rgb.convert('CMYK'), 'JPEG')
    assert np.array_equal(decode(data, 'x'), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))


def test_palette_with_transparency_does_not_warn(rgb, recwarn):
    data = encoded(rgb.convert('P'), transparency=bytes(range(256)))
    assert np.array_equal(decode(data, 'x'), np.asarray(rgb.convert('P').convert('RGB')))
    assert not recwarn.list


def test_sixteen_bit_grey_is_scaled_not_clipped():
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    array = decode(encoded(Image.fromarray(grey)), 'x')
    assert np.abs(array[..., 0] - grey / 257).max() <= 0.5
    assert (array[..., 0] == array[..., 2]).all()


def test_one_channel_on_request(rgb):
    array = decode(encoded(rgb), 'x', mode='L')
    assert array.shape == (9, 13, 1)
    assert np.array_equal(array[..., 0], np.asarray(rgb.convert('L')))


def test_orientation_is_not_applied(rgb):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    assert np.array_equal(decode(encoded(rgb, 'JPEG', exif=exif), 'x'), decode(encoded(rgb, 'JPEG'), 'x'))


@pytest.mark.parametrize(
    'options',
    [
        dict(subsampling=0),
        dict(subsampling=1),
        dict(subsampling=2, quality=30),
        dict(progressive=True, quality=95),
        dict(keep_rgb=True),
        dict(restart_marker_rows=1),
    ],
    ids=str,
)
@pytest.mark.parametrize('kind', ['RGB', 'L'])
@pytest.mark.parametrize('mode', ['RGB', 'L', 'all'])
def test_jpegs_are_pillows_bytes(options, kind, mode):
    image = Image.fromarray(photograph(61, 83)).convert(kind)
    if kind == 'L' and 'keep_rgb' in options:
        return
    data = encoded(image, 'JPEG', **options)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert(kind if mode == 'all' else mode))
    assert np.array_equal(decode(data, 'x', mode), expected.reshape(61, 83, -1))


@pytest.mark.parametrize('progressive', [False, True])
def test_jpegs_that_are_cut_off_are_refused_as_by_pillow(progressive):
    data = encoded(Image.fromarray(photograph(61, 83)), 'JPEG', progressive=progressive)
    for length in [0, 1, 20, *range(500, len(data), 199), len(data) - 3, len(data) - 2, len(data) - 1]:
        try:
            expected = np.asarray(Image.open(io.BytesIO(data[:length])).convert('RGB'))
        except OSError:
            with pytest.raises(CorruptImageError, match='x cannot be decoded'):
                decode(data[:length], 'x')
        else:
            assert np.array_equal(decode(data[:length], 'x'), expected)


def test_a_jpeg_bomb_is_refused_by_its_header(monkeypatch):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
    with pytest.raises(CorruptImageError, match='DecompressionBombError'):
        decode(encoded(Image.new('RGB', (64, 64)), 'JPEG'), 'x')


def test_only_jpegs_of_8_bit_colours_or_grey_go_another_way(rgb, monkeypatch):
    seen = []
    monkeypatch.setattr('cv2.imdecode', lambda data, flags: seen.append(flags))  # None: Pillow reads it instead
    for image, kind in ((rgb, 'PNG'), (rgb.convert('CMYK'), 'JPEG'), (rgb, 'WEBP')):
        decode(encoded(image, kind), 'x')
    assert not seen
    data = encoded(rgb, 'JPEG')
    assert np.array_equal(decode(data, 'x'), np.asarray(Image.open(io.BytesIO(data))))
    assert np.array_equal(decode(data, 'x', upright=True), np.asarray(Image.open(io.BytesIO(data))))  # nothing to turn
    assert len(seen) == 2


@pytest.mark.parametrize('damage', ['truncated', 'empty', 'text', 'broken png'])
def test_unreadable_images_are_named(tmp_path, rgb, damage):
    file = tmp_path / 'bad.jpg'
    jpeg = encoded(rgb.resize((200, 200)), 'JPEG')
    png = encoded(rgb)
    contents = {'truncated': jpeg[: len(jpeg) // 2], 'empty': b'', 'text': b'hello', 'broken png': png[:40] + png[60:]}
    file.write_bytes(contents[damage])
    with pytest.raises(CorruptImageError, match=r"bad\.jpg cannot be decoded.*on_corrupt='skip'"):
        decode(str(file), str(file))


@pytest.mark.parametrize(
    'pixels', [np.ones((4, 4), np.float32), np.full((4, 4), 2**20, np.int32), np.full((4, 4), -1, np.int32)]
)
def test_whole_files_without_8_bits_are_not_damaged(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / 'depth.tif')
    Image.new('RGB', (4, 4)).save(tmp_path / 'fine.png')
    source = ImageFolder(str(tmp_path), on_corrupt='skip')
    with pytest.raises(ValueError, match=r'depth\.tif: .*no other image replaces it. Save it again as uint8') as caught:
        source.image(0)
    assert not isinstance(caught.value, CorruptImageError)
    assert not source.substitutes


@pytest.mark.parametrize('on_corrupt', ['raise', 'skip'])
def test_a_file_that_is_gone_is_not_damaged(tmp_path, on_corrupt):
    for name in 'abc':
        Image.new('RGB', (4, 4)).save(tmp_path / f'{name}.png')
    source = ImageFolder(str(tmp_path), on_corrupt=on_corrupt)
    (tmp_path / 'b.png').unlink()
    with pytest.raises(
        FileNotFoundError, match=r'b\.png is gone: it was there when the files were listed.*Put it back'
    ):
        source.image(1)
    (tmp_path / 'b.png').mkdir()
    with pytest.raises(OSError, match=r'b\.png cannot be read \(Is a directory\)'):
        source.image(1)
    assert not source.substitutes


@pytest.mark.parametrize('kind', ['GIF', 'TIFF', 'WEBP', 'BMP', 'PPM'])
def test_formats_are_read_after_their_file_is_closed(rgb, kind):
    data = encoded(rgb, kind)
    assert np.array_equal(decode(data, 'x'), np.asarray(Image.open(io.BytesIO(data)).convert('RGB')))


@pytest.mark.parametrize(
    'code, turn', [(1, None), (3, Image.ROTATE_180), (6, Image.ROTATE_270), (2, Image.FLIP_LEFT_RIGHT)]
)
@pytest.mark.parametrize('kind', ['PNG', 'JPEG'])
def test_upright_photographs(rgb, code, turn, kind):
    exif = Image.Exif()
    exif[0x0112] = code
    data = encoded(rgb, kind, exif=exif)
    stored = Image.open(io.BytesIO(data)).convert('RGB')
    upright = stored if turn is None else stored.transpose(turn)
    assert np.array_equal(decode(data, 'x', upright=True), np.asarray(upright))
    assert np.array_equal(decode(data, 'x'), np.asarray(stored))


@pytest.mark.parametrize(
    'mode, channels', [('L', 1), ('LA', 2), ('RGB', 3), ('RGBA', 4), ('CMYK', 4), ('P', 3), ('1', 1)]
)
def test_all_channels_that_a_file_has(rgb, mode, channels):
    image = rgb.convert(mode)
    array = decode(encoded(image, 'TIFF'), 'x', 'all')
    assert array.shape == (9, 13, channels)
    assert array.dtype == np.uint8
    if channels in (2, 4):
        assert np.array_equal(array, np.asarray(image))


@pytest.mark.parametrize('kind', [np.uint8, np.uint16])
def test_pages_of_a_tiff_are_channels(kind):
    bands = np.random.default_rng(0).integers(0, np.iinfo(kind).max, (6, 7, 13)).astype(kind)
    pages = [Image.fromarray(bands[..., c]) for c in range(13)]
    data = encoded(pages[0], 'TIFF', save_all=True, append_images=pages[1:])
    assert np.array_equal(decode(data, 'x', 'all', deep=True), bands)
    assert decode(data, 'x', 'all').dtype == np.uint8
    assert decode(data, 'x', 'L').shape == (6, 7, 1)  # the first
    odd = encoded(pages[0], 'TIFF', save_all=True, append_images=[Image.fromarray(bands[:3, :, 0].copy())])
    with pytest.raises(ValueError, match='x: its 2 pages differ in size'):
        decode(odd, 'x', 'all')


def test_arrays_of_numpy(tmp_path):
    cube = np.random.default_rng(0).integers(0, 256, (5, 6, 16), np.uint8)
    for name, array in (('cube', cube), ('plane', cube[..., 0])):
        np.save(tmp_path / f'{name}.npy', array)
        data = (tmp_path / f'{name}.npy').read_bytes()
        for found in (decode(str(tmp_path / f'{name}.npy'), 'x'), decode(data, 'x')):
            assert np.array_equal(found, array if array.ndim == 3 else array[..., None])
    source = ImageFolder(str(tmp_path), extensions='.npy')
    assert [source.image(i).shape for i in range(2)] == [(5, 6, 16), (5, 6, 1)]


@pytest.mark.parametrize('content', ['pickled', 'short', 'header', 'zip', 'empty'])
def test_an_array_of_numpy_that_is_none(tmp_path, content):
    path = tmp_path / 'x.npy'
    np.save(path, np.zeros((40, 40), np.uint8) if content != 'pickled' else np.array([{}], object))
    whole = path.read_bytes()
    if content == 'zip':
        np.savez(path.open('wb'), a=np.zeros(3))
    elif content != 'pickled':
        path.write_bytes(dict(short=whole[:-9], header=whole[:30], empty=b'')[content])
    with pytest.raises(CorruptImageError, match=r'x\.npy cannot be decoded'):
        decode(str(path), str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError, match='is gone'):
        decode(str(path), str(path))


DEEP = {
    'sixteen bits': (np.array([[[0, 257, 65535]]], np.uint16), 65535, [0, 1, 255]),
    'twelve bits': (np.array([[[0, 16, 4095, 5000]]], np.uint16), 4095, [0, 1, 255, 255]),
    'floats': (np.array([[[0, 0.5, 1]]], np.float32), 1, [0, 128, 255]),
    'a window': (np.array([[[-1000, -160, 40, 240, 3000]]], np.int16), (-160, 240), [0, 0, 128, 255, 255]),
    'doubles': (np.array([[[-np.inf, 2.0, np.inf]]]), (1.0, 3.0), [0, 128, 255]),
    'bytes stay': (np.array([[[7, 200]]], np.uint8), 65535, [7, 200]),
}


@pytest.mark.parametrize('image, scale, expected', DEEP.values(), ids=DEEP)
def test_scale(image, scale, expected):
    assert scaled(image, scale, lambda: 'x').tolist() == [[expected]]
    source = Mine(np.repeat(image, 4, 0), scale=scale)
    for one in (source, Subset(source, fraction=1.0)):
        assert one.image(1).dtype == np.uint8
        assert one.image(1)[2].tolist() == [expected]
    assert EvaluationDataset(source)[0]['inputs'][0][:, 0, 0].tolist() == expected


@pytest.mark.parametrize('scale', [0, -1, (1, 1), (3, 2), (1, 2, 3), 'high', float('nan'), (0, float('inf')), True])
def test_a_scale_that_is_none(scale):
    with pytest.raises(ValueError, match='scale'):
        Mine(np.zeros((4, 4, 3), np.float32), scale=scale).image(0)


def test_numbers_that_are_none_have_no_scale():
    image = np.array([[[0.5, np.nan, np.nan]]])
    with pytest.raises(ValueError, match=r'Mine\.read\(2\), photo-2\.png, has 2 values that are NaN'):
        Mine(image, scale=1).image(2)


def test_deep_pixels_of_pillow():
    values = np.array([[0.25, 3.5]], np.float32)
    assert np.array_equal(to_array(Image.fromarray(values), 'L', deep=True), values[..., None])
    assert to_array(Image.fromarray(values), deep=True).shape == (1, 2, 3)
    with pytest.raises(ValueError, match='`scale` of the source'):
        to_array(Image.fromarray(values))


def test_photographs_of_ones_own_are_turned_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (8, 5)).save(tmp_path / 'a.jpg', exif=exif)
    assert ImageFolder(str(tmp_path)).image(0).shape == (8, 5, 3)
    assert ImageFolder(str(tmp_path), upright=False).image(0).shape == (5, 8, 3)
    said = [check_samples(EvaluationDataset(ImageFolder(str(tmp_path), upright=each))) for each in (True, False)]
    assert [', EXIF orientation applied' in text for text in said] == [True, False]
    part = Subset(ImageFolder(str(tmp_path)), fraction=1.0)
    assert check_samples(EvaluationDataset(part)).endswith('applied')


def test_sixteen_bit_files_with_a_scale(tmp_path):
    grey = np.array([[0, 4095], [1000, 9000]], np.uint16)
    Image.fromarray(grey).save(tmp_path / 'a.png')
    np.save(tmp_path / 'b.npy', np.repeat(grey[..., None], 7, 2))
    source = ImageFolder(str(tmp_path), extensions=('.png', '.npy'), scale=4095, mode='L')
    assert source.image(0)[..., 0].tolist() == source.image(1)[..., 6].tolist() == [[0, 255], [62, 255]]
    assert source.image(1).shape == (2, 2, 7)
    with pytest.raises(ValueError, match='scale=0'):
        ImageFolder(str(tmp_path), scale=0).image(0)
    with pytest.raises(TypeError, match=r'gave uint16 .*scale=65535'):
        ImageFolder(str(tmp_path), extensions='.npy').image(0)


@pytest.mark.parametrize('kind', ['TarShards', 'Parquet', 'ImageList'])
def test_every_reader_of_files_has_scale_and_upright(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6
    deep = encoded(Image.fromarray(np.array([[0, 4095, 9000]], np.uint16)), 'PNG', exif=exif)
    if kind == 'TarShards':
        with tarfile.open(tmp_path / 'x.tar', 'w') as tar:
            entry = tarfile.TarInfo('0.png')
            entry.size = len(deep)
            tar.addfile(entry, io.BytesIO(deep))
        given = dict(shards=str(tmp_path / 'x.tar'))
    elif kind == 'Parquet':
        arrow, parquet = pytest.importorskip('pyarrow'), pytest.importorskip('pyarrow.parquet')
        parquet.write_table(arrow.table(dict(image=[deep])), tmp_path / 'x.parquet')
        given = dict(files=str(tmp_path / 'x.parquet'), label=None)
    else:
        (tmp_path / '0.png').write_bytes(deep)
        given = dict(names=['0.png'], root=str(tmp_path))
    source = DATASETS.build(dict(type=kind, mode='L', upright=True, scale=4095, **given))
    assert source.image(0)[..., 0].tolist() == [[0], [255], [255]]
    assert DATASETS.build(dict(type=kind, mode='L', upright=False, **given)).image(0)[..., 0].tolist() == [[0, 16, 35]]
