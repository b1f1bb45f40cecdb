"""Mirrors cdm_cli/metrics/inception.py, beside clean-fid reading the same stand-in file."""

import hashlib
import warnings

import numpy as np
import pytest
import torch
from cleanfid.inception_torchscript import InceptionV3W
from cleanfid.resize import build_resizer

from cdm_cli.errors import BadInputError, MissingError
from cdm_cli.metrics import inception
from cdm_cli.metrics.inception import InceptionExtractor, WeightsFile
from tests.metrics.stand_in import save_stand_in


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("weights")


@pytest.fixture(scope="module")
def file(folder):
    return save_stand_in(folder)


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(
        np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32)).astype(np.uint8)
    )


def cleanfid_features(folder, images, mode):
    """What clean-fid computes for files of these images (ResizeDataset, then the network)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = InceptionV3W(str(folder), download=False, resize_inside=mode == "legacy_tensorflow")
        resizer = build_resizer(mode)
        resized = [resizer(image.permute(1, 2, 0).numpy()) for image in images]
    x = torch.stack([torch.from_numpy(np.float32(image)).permute(2, 0, 1) for image in resized])
    with torch.no_grad():
        return net, net(x)


@pytest.mark.parametrize("mode", ["clean", "legacy-tensorflow"])
def test_features_are_those_of_cleanfid_to_the_bit(folder, file, images, mode):
    extractor = InceptionExtractor(mode, weights=folder / file.name, file=file)
    _, expected = cleanfid_features(folder, images, mode.replace("-", "_"))
    features, _ = extractor(images)
    assert torch.equal(features, expected)
    assert (extractor.feature_dim, extractor.digest) == (features.shape[1], file.sha256)


def test_probabilities_are_those_of_the_network_without_bias(folder, file, images):
    extractor = InceptionExtractor("legacy-tensorflow", weights=folder / file.name, file=file)
    net, _ = cleanfid_features(folder, images, "legacy_tensorflow")
    _, probabilities = extractor(images)
    with torch.no_grad():
        expected = net.base(images.float(), no_output_bias=True)
    assert probabilities.shape == (5, 1008)
    torch.testing.assert_close(probabilities, expected, rtol=1e-6, atol=1e-9)


def test_another_file_of_that_name_is_refused(folder, file):
    wrong = WeightsFile(file.name, file.url, "0" * 64)
    with pytest.raises(BadInputError, match=r"SHA-256 .* is not 0000"):
        InceptionExtractor("clean", weights=folder / file.name, file=wrong)


def test_missing_weights_say_where_and_what_instead(monkeypatch, tmp_path):
    monkeypatch.setattr(inception, "list_weights_places", lambda file: [tmp_path / file.name])
    with pytest.raises(MissingError) as caught:
        InceptionExtractor("clean")
    line = str(caught.value)
    for part in (str(tmp_path), "inception-2015-12-05.pt", "https://", "--features features"):
        assert part in line
    with pytest.raises(MissingError, match="no such file"):
        InceptionExtractor("clean", weights=tmp_path / "other.pt")


def test_cleanfids_places_are_searched_in_order(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert inception.list_weights_places(inception.TORCHSCRIPT)[0].name == "inception-2015-12-05.pt"
    hub = tmp_path / "checkpoints" / inception.STATE_DICT.name
    assert inception.list_weights_places(inception.STATE_DICT) == [hub]
    hub.parent.mkdir()
    hub.write_bytes(b"weights")
    assert inception.find_weights(inception.STATE_DICT) == hub
    file = inception.STATE_DICT._replace(sha256=hashlib.sha256(b"weights").hexdigest())
    assert inception.read_known_weights(file) == b"weights"
