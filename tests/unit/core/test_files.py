from stickyproxy.core.files import LONGEST_PATH, Files


def test_a_file_is_looked_for_on_the_backend_that_showed_it_last() -> None:
    files = Files(10)
    files.learn([b"/a", b"/b"], "one")
    files.learn([b"/b"], "two")
    assert [files.find(path) for path in (b"/a", b"/b", b"/c")] == ["one", "two", None]


def test_past_the_bound_the_file_that_was_shown_longest_ago_goes() -> None:
    files = Files(3)
    files.learn([b"/a", b"/b", b"/c"], "one")
    files.learn([b"/a"], "one")
    files.learn([b"/d"], "one")
    assert [path for path in (b"/a", b"/b", b"/c", b"/d") if files.find(path)] == [b"/a", b"/c", b"/d"]
    files.learn((b"/%d" % number for number in range(1000)), "one")
    assert len(files) == 3


def test_a_path_that_is_longer_than_any_is_not_remembered() -> None:
    files = Files(10)
    files.learn([b"/" + b"a" * LONGEST_PATH], "one")
    assert len(files) == 0
