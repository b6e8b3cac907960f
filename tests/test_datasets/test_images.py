import io

import numpy as np
import pytest
from PIL import Image

from mmkernel.datasets import CorruptImageError, ImageFolder, decode


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
    assert decode(encoded(rgb, 'JPEG', exif=exif), 'x').shape == (9, 13, 3)


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
