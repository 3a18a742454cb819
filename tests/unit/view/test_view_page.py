import io
import os
import shutil
import threading
from contextlib import contextmanager

import headless_chromium
import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from stores_to_view import write_store

from headsr.render.pyramid import level_grids
from headsr.view import ViewServer, levels
from headsr.volumes import Grid

# mm: a ball, and where a small bright one lies from there: on the patient's left, for x grows to the right.
MIDDLE, RADIUS, BESIDE = np.array([5.0, -8.0, 12.0]), 25.0, np.array([-42.0, 0.0, 0.0])
# One oblique with flat voxels, one along the scanner's axes with finer voxels and another box.
TURNED = nib.eulerangles.euler2mat(z=0.2, x=0.3)


def grid_about_the_middle(shape, directions, size):
    matrix = directions @ np.diag(size)
    return Grid(shape, nib.affines.from_matvec(matrix, MIDDLE - matrix @ (np.array(shape) / 2 - 0.3)))


GRIDS = [
    grid_about_the_middle((66, 50, 22), TURNED, (1.8, 2.2, 4.0)),
    grid_about_the_middle((108, 90, 80), np.eye(3), (1.1, 1.1, 1.1)),
]


def phantom(grid):
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    place = nib.affines.apply_affine(grid.affine, index) - MIDDLE
    data = 100 + np.random.default_rng(1).uniform(-10, 10, grid.shape)
    data[np.linalg.norm(place, axis=-1) < RADIUS] += 400
    data[np.linalg.norm(place - BESIDE, axis=-1) < 9] += 900
    return data


class Viewed:
    """The page of two stores, what is stored in them, and what is seen of it."""

    def __init__(self, browser, stored):
        self.browser, self.stored = browser, stored

    def press(self, *keys):
        for key in keys:
            self.browser.press(key)
            self.browser.settle()
        self.browser.wait_for("document.body.dataset.state === 'shown' && !panes.some((pane) => pane.loading)")
        self.browser.settle()

    def said_and_stored(self):
        """Of each pane: the intensity that the page says, and the stored one at that position on the level shown."""
        crosshair = self.browser.value("view.crosshair")
        pairs = []
        for number, (grid, arrays) in enumerate(zip(GRIDS, self.stored, strict=True)):
            said = self.browser.value(f"panes[{number}].output.textContent").split("intensity ")[1]
            level = self.browser.value(f"panes[{number}].shown")
            index = np.linalg.solve(level_grids(grid)[level].affine, [*crosshair, 1])[:3]
            pairs.append((float(said), float(arrays[level][tuple(np.rint(index).astype(int))])))
        return pairs

    def assert_says_what_is_stored(self):
        for said, stored in self.said_and_stored():
            assert said == pytest.approx(stored, rel=1e-6)

    def planes(self, pane):
        """The pictures (axial, coronal, sagittal) of a pane, as RGB."""
        left, top = self.browser.value(f"(({{x, y}}) => [x, y])(panes[{pane}].canvas.getBoundingClientRect())")
        tiles = self.browser.value(
            f"panes[{pane}].nv.screenSlices.map((tile) => [tile.axCorSag, ...tile.leftTopWidthHeight])"
        )
        picture = np.asarray(Image.open(io.BytesIO(self.browser.screenshot())).convert("RGB")).astype(int)
        boxes = {
            plane: np.rint([top + y, top + y + h, left + x, left + x + w]).astype(int) for plane, x, y, w, h in tiles
        }
        assert set(boxes) == {0, 1, 2}
        return [picture[boxes[plane][0] : boxes[plane][1], boxes[plane][2] : boxes[plane][3]] for plane in range(3)]

    def millimetres_per_pixel(self):
        return self.browser.value("panes.map((pane) => pane.mmPerPixel())")


def place(picture, low, high):
    """Middle and size (x, y in pixels) of the largest thing as grey as this, without coloured crosshair and letters."""
    grey = (picture.max(axis=-1) - picture.min(axis=-1) < 12) & (picture[..., 0] > low) & (picture[..., 0] < high)
    things, _ = ndimage.label(ndimage.binary_closing(grey, np.ones((5, 5))))
    sizes = np.bincount(things.ravel())[1:]
    assert sizes.max() > 200
    rows, columns = ndimage.find_objects((things == sizes.argmax() + 1).astype(int))[0]
    size = np.array([columns.stop - columns.start, rows.stop - rows.start])
    return np.array([columns.start, rows.start]) + size / 2, size


@contextmanager
def browsing(stores, profile):
    """A browser that shows the page of some stores, with all that it is going to show at first."""
    if headless_chromium.PROGRAM is None:
        reason = "Chromium is not installed (Debian's chromium)"
        if os.environ.get("CI", "").lower() not in ("", "0", "false"):
            pytest.fail(reason)
        pytest.skip(reason)
    with ViewServer(stores) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            with headless_chromium.Chromium(profile) as browser:
                browser.open(server.url)
                browser.wait_for("['shown', 'failed'].includes(document.body?.dataset.state)")
                browser.settle()
                yield browser
                # Of the whole session: nothing was asked of anyone else.
                assert [url for url in browser.requests if not url.startswith((server.url, "data:image/"))] == []
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def viewed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    stores = [folder / f"sub-01_desc-{name}_T1w.ome.zarr" for name in ("first", "second")]
    stored = [write_store(store, phantom(grid), grid) for store, grid in zip(stores, GRIDS, strict=True)]
    with pytest.MonkeyPatch.context() as change:
        # So that the finest level of the second volume is too large, and its next is shown first.
        for limit, voxels in {"SHOWN_FIRST": 150_000, "SHOWN_WHOLE": 150_000, "BOX": 16}.items():
            change.setattr(levels, limit, voxels)
        with browsing(stores, folder / "profile") as browser:
            yield Viewed(browser, stored)
            assert len(browser.requests) > 6
            assert browser.complaints == []


def test_the_page_shows_three_planes_of_each_volume_and_says_which_level(viewed):
    assert viewed.browser.value("document.title") == (
        "headsr: sub-01_desc-first_T1w (level 0) | sub-01_desc-second_T1w (level 1)"
    )
    assert "research use only, not for clinical use" in viewed.browser.value("document.body.innerText")
    assert "54 × 45 × 40 voxels of 2.2 mm" in viewed.browser.value("document.body.innerText")
    for pane in (0, 1):
        for picture in viewed.planes(pane):
            _, size = place(picture, 50, 200)
            assert picture.std() > 20
            # A ball is round whatever the shape of the voxels (4 mm at most), and as large as it is.
            millimetres = size * viewed.millimetres_per_pixel()[pane]
            assert millimetres == pytest.approx([2 * RADIUS, 2 * RADIUS], abs=3)


def test_left_and_right_are_where_the_letters_say(viewed):
    for key, side in (("r", -1), ("r", 1)):
        viewed.press(key)
        for pane in (0, 1):
            axial = viewed.planes(pane)[0]
            (ball, _), (beside, _) = place(axial, 50, 200), place(axial, 230, 256)
            distance = (beside - ball) * viewed.millimetres_per_pixel()[pane]
            assert distance[0] == pytest.approx(side * BESIDE[0], abs=4)


def test_the_intensity_under_the_crosshair_is_the_stored_one_at_that_position(viewed):
    for keys in (["ArrowLeft", "ArrowUp", "PageUp"], ["ArrowRight"] * 5 + ["PageDown"] * 3 + ["ArrowDown"] * 4):
        viewed.press(*keys)
        viewed.assert_says_what_is_stored()


def test_clicking_zooming_and_moving_the_picture_in_one_pane_does_it_in_both(viewed):
    before = viewed.browser.value("view")
    for pane, point in ((0, (20, 30)), (1, (-25, 10))):
        x, y = viewed.browser.value(
            f"""(() => {{
              const [left, top, width, height] = panes[{pane}].nv.screenSlices[0].leftTopWidthHeight;
              const canvas = panes[{pane}].canvas.getBoundingClientRect();
              return [canvas.x + left + width / 2 + {point[0]}, canvas.y + top + height / 2 + {point[1]}];
            }})()"""
        )
        for kind in ("mousePressed", "mouseReleased"):
            viewed.browser.mouse(kind, x, y, button="left", buttons=1, clickCount=1)
        viewed.browser.mouse("mouseWheel", x, y, deltaX=0, deltaY=-100, modifiers=2)
        viewed.browser.mouse("mousePressed", x, y, button="left", buttons=1, modifiers=8, clickCount=1)
        viewed.browser.mouse("mouseMoved", x + 15, y + 6, button="left", buttons=1, modifiers=8)
        viewed.browser.mouse("mouseReleased", x + 15, y + 6, button="left", modifiers=8, clickCount=1)
        viewed.browser.settle()
        viewed.press()
        viewed.assert_says_what_is_stored()
        here, there = viewed.browser.value("panes.map((pane) => pane.whatIsShown())")
        for what in ("crosshair", "middle", "mmPerPixel"):
            assert here[what] == pytest.approx(there[what], abs=1e-3)
        assert np.linalg.norm(np.subtract(here["crosshair"], before["crosshair"])) > 2
        assert np.linalg.norm(np.subtract(here["middle"], before["middle"])) > 2
        assert here["mmPerPixel"] == pytest.approx(before["mmPerPixel"] / 1.25, rel=1e-3)
        before = here
    viewed.press("0")
    one, two = (place(viewed.planes(pane)[0], 50, 200)[1] for pane in (0, 1))
    assert one == pytest.approx(two, abs=8)


def test_the_finest_level_is_shown_around_the_crosshair_and_follows_it(viewed):
    viewed.press("]")
    assert viewed.browser.value("panes[1].shown") == 0
    assert "16 voxels around the crosshair" in viewed.browser.value("document.body.innerText")
    viewed.assert_says_what_is_stored()
    asked = len(viewed.browser.requests)
    viewed.press(*["ArrowLeft"] * 8)
    viewed.browser.wait_for("!panes[1].loading && Math.abs(view.crosshair[0] - panes[1].boxPoint[0]) < 3")
    assert ["level-0.nii?at=" in url for url in viewed.browser.requests[asked:]] == [True]
    viewed.press("ArrowLeft")
    viewed.assert_says_what_is_stored()
    viewed.press("[")
    assert viewed.browser.value("panes[1].shown") == 1
    viewed.assert_says_what_is_stored()


def test_the_window_is_one_for_both_unless_it_is_not_to_be(viewed):
    setting = "panes[1].highElement.value = {}; panes[1].highElement.dispatchEvent(new Event('change'))"
    windows = "panes.map((pane) => [pane.nv.volumes[0].cal_min, pane.nv.volumes[0].cal_max])"
    viewed.browser.value(setting.format(800))
    (low, high), second = viewed.browser.value(windows)
    assert high == 800 and second == [low, high]
    for kind, x in (("mousePressed", 150), ("mouseMoved", 250), ("mouseReleased", 250)):
        viewed.browser.mouse(kind, x, 400, button="right", buttons=2, clickCount=1)
    viewed.press()
    (narrow, wide), second = viewed.browser.value(windows)
    assert wide - narrow == pytest.approx(2**0.5 * (high - low)) and second == [narrow, wide]
    viewed.browser.value(setting.format(800))
    viewed.browser.value(f"together.checked = false; {setting.format(700)}")
    assert [high for _, high in viewed.browser.value(windows)] == [800, 700]


def test_keys_go_on_after_a_checkbox_was_clicked_but_not_while_a_number_is_typed(viewed):
    crosshair = viewed.browser.value("view.crosshair")
    box = viewed.browser.value("(({x, y}) => [x + 6, y + 6])(smooth.getBoundingClientRect())")
    for _ in range(2):
        for kind in ("mousePressed", "mouseReleased"):
            viewed.browser.mouse(kind, *box, button="left", buttons=1, clickCount=1)
    assert viewed.browser.value("document.activeElement === smooth && smooth.checked")
    viewed.press("PageUp")
    moved = viewed.browser.value("view.crosshair")
    assert moved != pytest.approx(crosshair, abs=0.5)
    viewed.browser.value("panes[0].lowElement.focus()")
    viewed.press("ArrowUp", "0", "-")
    assert viewed.browser.value("view.crosshair") == moved
    viewed.browser.value("document.activeElement.blur()")


class TestABoxBesideAHead:
    """A box of small voxels, inside the whole head of large ones, and what becomes of the page as it is replaced."""

    HEAD = Grid((60, 50, 40), np.diag([2.0, 2.0, 2.0, 1.0]))
    BOX = Grid((24, 20, 16), nib.affines.from_matvec(np.diag([0.5] * 3), [70.0, 60.0, 50.0]))

    @pytest.fixture(scope="class")
    def stores(self, tmp_path_factory):
        stores = [tmp_path_factory.mktemp("box") / f"{name}.ome.zarr" for name in ("head", "box")]
        for store, grid in zip(stores, (self.HEAD, self.BOX), strict=True):
            write_store(store, np.random.default_rng(0).random(grid.shape) * 100, grid)
        return stores

    @pytest.fixture(scope="class")
    def browser(self, stores, tmp_path_factory):
        with browsing(stores, tmp_path_factory.mktemp("profile")) as browser:
            yield browser

    @pytest.mark.parametrize(
        ("start", "key", "end"),
        [
            ([20, 30, 40], "ArrowRight", [22, 30, 40]),  # in the head alone
            ([20, 30, 40], "PageDown", [20, 30, 38]),
            ([72, 62, 52], "ArrowLeft", [71.5, 62, 52]),  # in both
            ([81.5, 62, 52], "ArrowRight", [84, 62, 52]),  # out of the box, by a voxel of the head's own
            ([118, 30, 40], "ArrowRight", [118, 30, 40]),  # at the head's end
            ([150, 30, 40], "ArrowLeft", [148, 30, 40]),  # outside of both
        ],
    )
    def test_arrow_keys_step_by_the_finest_voxel_under_the_crosshair(self, browser, start, key, end):
        browser.value(f"view.crosshair = {start}; showAll()")
        browser.press(key)
        browser.settle()
        assert browser.value("view.crosshair") == pytest.approx(end, abs=1e-3)
        for pane in (0, 1):
            shown = browser.value(f"panes[{pane}].whatIsShown().crosshair")
            assert shown == pytest.approx(end, abs=1e-3)

    def test_a_store_that_was_replaced_is_not_shown_and_the_page_says_so(self, browser, stores):
        shutil.rmtree(stores[1])
        write_store(stores[1], np.zeros(self.HEAD.shape), self.HEAD)
        browser.value("choose(0)")
        said = browser.value("panes.map((pane) => pane.messageElement.textContent)")
        assert said == [
            "",
            "level 0 cannot be shown: box.ome.zarr: was replaced or deleted; start headsr view again.",
        ]
