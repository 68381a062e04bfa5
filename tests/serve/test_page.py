"""The page of the service, in a real browser: it searches, shows why, and stays unharmed by whatever passages hold."""

from __future__ import annotations

import json
import re
from urllib.parse import quote

import httpx
import pytest
from builders.browser import CHROMIUM, chromium, is_local
from builders.service import serving

from colbert_core import Index, Passage

EMOJI = "🐈 👩‍🚀 𝔘𝔫𝔦 Cats purr when they are content 🎉 and dogs bark."
HOSTILE = '<script>alert(1)</script><img src=x onerror="alert(2)"> javascript:alert(3) \u202egnp.exe Cats <b>purr</b>'
LONG = (
    "Nothing to see in this sentence about harbours. " * 60
    + "Cats purr softly. "
    + "The boats leave at noon for the islands. " * 60
)
TOKEN = "0123456789abcdef-token"

browser_only = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")]


@pytest.fixture(scope="module")
def indexes(default_encoder):
    cats = Index.create(None, default_encoder)
    cats.add(
        [
            Passage("emoji", EMOJI, {"title": "Emoji first", "year": 2024, "tags": ["cat", "dog"]}),
            Passage("long", LONG, {"year": 2020, "source": "https://example.org/long"}),
            Passage("dogs", "Dogs wag their tails when somebody comes home.", {"year": 2021}),
        ]
    )
    evil = Index.create(None, default_encoder)
    evil.add(
        [
            Passage(
                f'"><script>alert({n})</script>{n}',
                HOSTILE,
                {"<img src=x onerror=alert(1)>": HOSTILE, "title": HOSTILE, "url": "javascript:alert(1)", "__proto__": "x"},
            )
            for n in range(3)
        ]
    )
    return {"cats": cats, "<img src=x onerror=alert(9)>": evil}


@pytest.fixture(scope="module")
def service(indexes):
    with serving(indexes) as url:
        yield url


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium") / "profile") as browser:
        yield browser


@pytest.fixture
def browser(tab):
    """The tab, empty; whatever a test did, nothing left this machine, and nobody complained or ran anything."""
    tab.open("about:blank")
    tab.resize(1200, 900)
    tab.prefer("light")
    tab.requests.clear()
    tab.problems.clear()
    yield tab
    tab.evaluate("1")  # events that came meanwhile
    assert [address for address in tab.requests if not is_local(address)] == []
    assert tab.problems == []
    assert tab.dialogs == []


def ask(browser, service, question, **more):
    parts = "".join(f"&{name}={quote(str(value))}" for name, value in more.items())
    browser.open("about:blank")
    browser.open(f"{service}/#q={quote(question)}{parts}")
    browser.wait("/hits? in|Nothing|^$/.test(document.getElementById('status').textContent) && document.title !== 'colbert'")


def window_bounds(browser):
    return browser.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")


# Without a browser


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/docs", "text/html"),
        ("/page/page.js", "text/javascript"),
        ("/page/page.css", "text/css"),
        ("/page/icon.svg", "image/svg+xml"),
    ],
)
def test_files_have_their_types_a_strict_policy_and_are_sent_once(service, path, kind):
    answer = httpx.get(service + path)
    assert (answer.status_code, answer.headers["content-type"].partition(";")[0]) == (200, kind)
    policy = answer.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "style-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"} <= set(
        policy
    )
    assert "unsafe" not in " ".join(policy)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    for known in (answer.headers["etag"], f'"other", W/{answer.headers["etag"]}'):
        again = httpx.get(service + path, headers={"If-None-Match": known})
        assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(service + path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert httpx.head(service + path).headers["content-length"] == str(len(answer.content))


@pytest.mark.parametrize("name", ["nothing.js", "index.html", "..%2fpages.py", "__init__.py"])
def test_a_file_that_the_page_does_not_have_is_not_found(service, name):
    answer = httpx.get(f"{service}/page/{name}")
    assert answer.status_code == 404
    assert answer.json()["type"] == "HTTPError"


def test_the_page_loads_nothing_from_elsewhere_and_has_no_inline_script_or_style(service):
    for path in ("/", "/docs"):
        html = httpx.get(service + path).text
        assert "//" not in html.replace("<!doctype", "")
        assert " style=" not in html
        assert "<script>" not in html
        assert not re.search(r"<[^>]* on\w+=", html)


# In a browser


class TestBrowser:
    pytestmark = browser_only

    def test_a_question_finds_passages_and_marks_their_words(self, browser, service):
        browser.open(f"{service}/")
        browser.wait("document.getElementById('index').options.length === 2")
        browser.evaluate(
            "document.getElementById('index').value = 'cats'; document.getElementById('index').dispatchEvent(new Event('change'))"
        )
        browser.wait("document.getElementById('status').textContent === '3 passages to search.'")
        browser.evaluate("document.getElementById('query').focus()")
        browser.write("Why do cats purr?")
        browser.press("Enter")
        browser.wait("document.querySelectorAll('article').length === 3")
        assert browser.text("#status").startswith("3 hits in ")
        assert browser.evaluate("document.getElementById('status').getAttribute('aria-live')") == "polite"
        assert "purr" in " ".join(browser.texts("mark"))
        assert browser.evaluate("location.hash").startswith("#q=Why+do+cats+purr%3F&index=cats")
        assert browser.evaluate("document.querySelector('mark').title")
        assert browser.evaluate("+document.querySelector('mark').style.getPropertyValue('--weight') > 0")

    def test_marks_count_characters_as_python_does(self, browser, service, indexes):
        ask(browser, service, "Why do cats purr?", index="cats", where='{"year": 2024}')
        (hit,) = indexes["cats"].search("Why do cats purr?", 1, where={"year": 2024}, mode="hybrid", evidence=True)
        assert hit.evidence.highlights
        assert browser.texts("article mark") == [EMOJI[mark.start : mark.end] for mark in hit.evidence.highlights]
        assert browser.text("article .text") == EMOJI

    def test_offsets_of_characters_become_offsets_of_units(self, browser, service):
        ask(browser, service, "cats", index="cats")
        found = browser.evaluate(
            "import('/page/text.js').then(({unitOffsets, countPoints}) =>"
            " [...['a😀b', 'é𝔘\\u0301x', 'plain'].map((text) => [...unitOffsets(text, [3, 0, 2, 1, 1])]), countPoints('a😀b')])"
        )
        assert found == [
            [[0, 0], [1, 1], [2, 3], [3, 4]],
            [[0, 0], [1, 1], [2, 3], [3, 4]],
            [[0, 0], [1, 1], [2, 2], [3, 3]],
            3,
        ]

    def test_why_says_for_each_word_what_answers_it(self, browser, service):
        ask(browser, service, "Why do cats yodel?", index="cats", where='{"year": 2024}')
        rows = dict(zip(browser.texts(".answers tbody th"), browser.texts(".answers tbody td"), strict=True))
        assert "Cats" in rows["cats"]
        assert any("yodel" in text for text in browser.texts(".answers s"))

    def test_a_filter_is_built_of_fields_operators_and_values(self, browser, service):
        ask(browser, service, "animals", index="cats")
        browser.click("#filters-toggle")
        browser.wait("!document.getElementById('filters').hidden")
        browser.click("#add-filter")
        assert "year" in browser.texts("#rows select:first-child option")
        browser.evaluate(
            "(() => { const [path, operator] = document.querySelectorAll('#rows select');"
            " path.value = 'year'; path.dispatchEvent(new Event('change'));"
            " operator.value = '$gte'; operator.dispatchEvent(new Event('change'));"
            " document.querySelector('#rows input').focus(); })()"
        )
        browser.write("2021")
        browser.press("Enter")
        browser.wait("document.querySelectorAll('article').length === 2")
        assert json.loads(browser.evaluate("new URLSearchParams(location.hash.slice(1)).get('where')")) == {
            "year": {"$gte": 2021}
        }
        assert browser.text("#filters-toggle") == "Filter (1)"
        browser.evaluate("history.back()")
        browser.wait("document.querySelectorAll('article').length === 3")

    def test_a_value_of_the_metadata_filters_by_itself_and_an_address_is_a_link(self, browser, service):
        ask(browser, service, "cats purr", index="cats")
        assert browser.evaluate("document.querySelector('.metadata a').href") == "https://example.org/long"
        browser.evaluate("[...document.querySelectorAll('.value')].find((each) => each.textContent === '2021').click()")
        browser.wait("document.querySelectorAll('article').length === 1")
        assert browser.text("article .title") == "dogs"

    def test_what_is_wrong_is_said_in_words(self, browser, service):
        ask(browser, service, "cats", index="cats")
        for where, said in (("{", "The filter is no valid JSON"), ("[1]", "must be a JSON object")):
            browser.evaluate(f"document.getElementById('where').value = {where!r}; document.querySelector('.go').click()")
            browser.wait(f"document.getElementById('problem').textContent.includes({said!r})")

    def test_an_error_of_the_service_is_shown(self, browser, service):
        ask(browser, service, "cats", index="cats", where='{"year": {"$near": 1}}')
        browser.wait("document.getElementById('problem').textContent.includes('$near')")
        browser.evaluate("1")
        assert all("400" in problem for problem in browser.problems)  # Chromium notes every such answer by itself
        browser.problems.clear()

    def test_nothing_found_is_said_with_its_reason(self, browser, service):
        ask(browser, service, "cats", index="cats", where='{"year": 1900}')
        assert browser.text("#status") == "Nothing was found: the filter lets no passage through."
        ask(browser, service, "zyzzyva", index="cats", mode="words")
        assert browser.text("#status").startswith("Nothing was found: no passage has any of these words.")

    def test_modes_are_switched(self, browser, service):
        ask(browser, service, "cats purr", index="cats")
        assert browser.texts("article:first-child .score .name")[:2] == ["relevance", "words"]
        browser.click("input[value=maxsim]")
        browser.wait(
            "location.hash.includes('mode=maxsim') && document.querySelectorAll('.score.words').length === 0 && document.querySelector('.score.relevance')"
        )
        browser.click("input[value=words]")
        browser.wait("document.querySelectorAll('.score.relevance').length === 0 && document.querySelector('.score.words')")

    def test_the_keyboard_alone_is_enough(self, browser, service):
        ask(browser, service, "cats purr", index="cats")
        here = "document.activeElement.getAttribute('aria-labelledby')"
        browser.evaluate("document.activeElement.blur()")
        browser.press("j")
        assert browser.evaluate(here) == "hit-1"
        browser.press("ArrowDown")
        assert browser.evaluate(here) == "hit-2"
        assert browser.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
        browser.press("k")
        assert browser.evaluate(here) == "hit-1"
        was_open = browser.evaluate("document.activeElement.querySelector('details').open")
        browser.press("Enter")
        assert browser.evaluate("document.activeElement.querySelector('details').open") is not was_open
        browser.press("Escape")
        assert browser.evaluate("document.activeElement.id") == "query"
        browser.press("ArrowDown")
        browser.press("/")
        assert browser.evaluate("document.activeElement.id") == "query"

    def test_hits_are_copied_as_markdown(self, browser, service):
        browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
        ask(browser, service, "Why do cats purr?", index="cats", where='{"year": 2024}')
        browser.evaluate("document.activeElement.blur()")
        browser.press("j")
        browser.press("c")
        browser.wait("document.getElementById('notice').textContent === 'Copied hit 1.'")
        assert browser.evaluate("navigator.clipboard.readText()") == f"[1] Emoji first (`emoji`)\n\n> {EMOJI}\n"
        ask(browser, service, "Why do cats purr?", index="cats")
        browser.click("#copy-all")
        browser.wait("document.getElementById('notice').textContent === 'Copied 3 hits.'")
        copied = browser.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("Passages that answer “Why do cats purr?”:\n\n[1]")
        assert "[3]" in copied

    def test_what_is_outside_of_the_window_is_folded(self, browser, service):
        ask(browser, service, "Cats purr softly", index="cats", where='{"year": 2020}')
        assert len(browser.text(".text .window")) < 1500
        assert len(browser.text(".text")) < 2000
        assert "characters" in browser.evaluate("document.querySelector('.place').getAttribute('aria-label')")
        for _ in browser.texts(".fold"):
            browser.click(".fold[aria-expanded=false]")
        assert (
            browser.evaluate("[...document.querySelectorAll('.outside, .window')].map((each) => each.textContent).join('')")
            == LONG
        )

    def test_hostile_content_is_shown_as_text(self, browser, service):
        ask(browser, service, "Cats purr", index="<img src=x onerror=alert(9)>")
        assert len(browser.texts("article")) == 3
        assert browser.texts("article .text") == [HOSTILE] * 3
        assert browser.texts("article .title") == [HOSTILE] * 3
        assert "<script>alert" in browser.texts("article .id")[0]
        assert (
            browser.evaluate("document.querySelectorAll('main script, main img, main b:not(.answer b), main [onerror]').length")
            == 0
        )
        assert browser.evaluate("[...document.links].filter((each) => each.protocol === 'javascript:').length") == 0
        assert browser.evaluate("({}).x === undefined && Object.keys(Object.prototype).length === 0")
        browser.evaluate(
            "[...document.querySelectorAll('.value')].find((each) => each.textContent === 'javascript:alert(1)').click()"
        )
        browser.wait("document.querySelectorAll('article').length === 3 && location.hash.includes('where=')")

    def test_dark_and_light_and_the_switch_between_them(self, browser, service):
        light, dark = "rgb(250, 249, 246)", "rgb(17, 21, 28)"
        ground = "getComputedStyle(document.body).backgroundColor"
        ask(browser, service, "cats", index="cats")
        assert browser.evaluate(ground) == light
        browser.prefer("dark")
        assert browser.evaluate(ground) == dark
        browser.click("#theme")
        assert browser.evaluate(ground) == light
        ask(browser, service, "cats", index="cats")
        assert browser.evaluate(ground) == light  # it is remembered
        browser.evaluate("localStorage.clear()")

    @pytest.mark.parametrize("index", ["cats", "<img src=x onerror=alert(9)>"])
    def test_narrow_screens_do_not_scroll_sideways(self, browser, service, index):
        browser.resize(390, 844)
        ask(browser, service, "Cats purr", index=index, where='{"title": {"$exists": true}}')
        assert browser.texts("article")
        assert window_bounds(browser) == [390, 390]
        browser.open(f"{service}/docs")
        browser.wait("document.querySelectorAll('.route').length > 5")
        assert window_bounds(browser) == [390, 390]

    def test_the_routes_are_listed(self, browser, service):
        browser.open(f"{service}/docs")
        browser.wait("document.querySelectorAll('.route').length > 5")
        assert "/v1/indexes/{name}/search" in browser.texts(".route summary code")
        search = browser.evaluate(
            "[...document.querySelectorAll('.route')].find((each) => each.querySelector('code').textContent.endsWith('}/search')).textContent"
        )
        assert "Most hits." in search
        assert f"curl '{service}/v1/indexes/{{name}}/search'" in search
        assert browser.evaluate("document.querySelector('nav a').href") == f"{service}/"

    def test_a_service_with_a_token_asks_for_it_once(self, browser, indexes):
        with serving(indexes, token=TOKEN) as url:
            browser.open(f"{url}/#q=cats&index=cats")
            for token in ("wrong", TOKEN):
                browser.wait("document.getElementById('token-dialog').open")
                browser.write(token)
                browser.press("Enter")
                browser.wait("!document.getElementById('token-dialog').open || !document.getElementById('token-wrong').hidden")
            browser.wait("document.querySelectorAll('article').length === 3")
            browser.open(f"{url}/docs")
            browser.wait("document.querySelectorAll('.route').length > 5")
            assert all("401" in problem for problem in browser.problems)
            browser.problems.clear()
