"""Source code: functions, classes and what is left, in fifteen languages, and what begins a passage of it."""

from __future__ import annotations

import random
import re
import sys

import pytest

from colbert_core.documents import code
from colbert_core.documents.code import code_parts, read_code
from colbert_core.documents.formats import format_of
from colbert_core.documents.part import UnreadableFileError
from colbert_core.documents.pieces import Whole, read_file

CART = '''\
"""Carts."""

import decimal

RATE = 0.19


# The one of a customer.
class Cart(Base):
    """What a customer buys."""

    limit = 10

    # Adds a thing,
    # or two.
    @timed
    def add(self, item):
        """Put an item into the cart."""
        self.items.append(item)

        return self

    @property
    def size(self):
        return len(self.items)

    def total(self): return 0


def main():
    Cart().add(1)


if __name__ == "__main__":
    main()
'''


class Words(Whole):
    """Cuts nothing and counts words and signs."""

    def count_tokens(self, text):
        return len(re.findall(r"\w+|[^\w\s]", text))


def symbols(source, language):
    return [part.metadata.get("symbol") for part in code_parts(source, language)]


def test_a_module_is_cut_into_what_is_left_of_it_its_classes_and_its_functions():
    module, cart, add, size, main = code_parts(CART, "python")
    assert module.text == (
        '"""Carts."""\n\nimport decimal\n\nRATE = 0.19\n\nif __name__ == "__main__":\n    main()'  # what runs at once
    )
    assert cart.text == (
        '# The one of a customer.\nclass Cart(Base):\n    """What a customer buys."""\n\n    limit = 10\n\n'
        "    def add(self, item):\n\n    def size(self):\n\n    def total(self): return 0"
    )
    assert add.text == (
        "# Adds a thing,\n# or two.\n@timed\ndef add(self, item):\n"
        '    """Put an item into the cart."""\n    self.items.append(item)\n\n    return self'
    )
    assert size.text == "@property\ndef size(self):\n    return len(self.items)"
    assert main.text == "def main():\n    Cart().add(1)"
    assert [part.metadata for part in (module, cart, add, size, main)] == [
        {"language": "python", "line": 1, "end_line": 35},
        {"language": "python", "symbol": "Cart", "line": 8, "end_line": 27},
        {"language": "python", "symbol": "Cart.add", "line": 14, "end_line": 21},
        {"language": "python", "symbol": "Cart.size", "line": 23, "end_line": 25},
        {"language": "python", "symbol": "main", "line": 30, "end_line": 31},
    ]
    assert add.headings == ("Cart", "add")


def test_lines_are_those_of_the_file(tmp_path):
    for part in list(code_parts(CART, "python"))[1:]:
        lines = CART.splitlines()[part.metadata["line"] - 1 : part.metadata["end_line"]]
        assert part.text.splitlines()[0] == lines[0].strip()
        assert part.text.splitlines()[-1].strip() == lines[-1].strip()


def test_a_passage_begins_with_the_path_the_classes_and_the_function(tmp_path):
    words = Words()
    file = tmp_path / "cart.py"
    file.write_text(CART)
    passages = list(read_file(file, "src/shop/cart.py", words))
    texts = {passage.metadata.get("symbol"): passage.text for passage in passages}
    assert texts["Cart.add"].startswith("src/shop/cart.py > Cart > add\n\n# Adds a thing,")
    assert texts[None].startswith('src/shop/cart.py\n\n"""Carts."""')
    assert [passage.id for passage in passages] == [f"src/shop/cart.py#{number}" for number in range(1, len(passages) + 1)]
    long = list(read_file(file, "src/a/very/long/path/that/leaves/no/room/for/code/cart.py", words, piece_tokens=18))
    assert [passage.text.splitlines()[0] for passage in long if passage.metadata.get("symbol") == "main"] == ["cart.py > main"]


SOURCES = {
    "javascript": (
        """\
// Adds.
export const add = (a, b) => {
  return a + b;
};
export default class Cart extends Base {
  static async load(id) {
    return id;
  }
  clear = () => {
    this.items = [];
  };
  get size() { return 1; }
}
function* pages() {
  yield 1;
}
module.exports.close = function () {
  return 1;
};
(function () {
  function inner() {
    return 1;
  }
})();
const short = (x) => x;
""",
        [None, "add", "Cart", "Cart.load", "Cart.clear", "pages", "module.exports.close", "inner"],
    ),
    "typescript": (
        """\
@Component({})
export class Cart<T> implements Base {
  @Input() name: string = "a";
  @Timed()
  add(item: T): void {
    this.items.push(item);
  }
}
export interface Item { id: string }
type Price = number;
enum Kind { A, B }
namespace shop {
  export function open(): void {
    return;
  }
}
import a from "a";
""",
        [None, "Cart", "Cart.add", "Item", "Price", "Kind", "shop.open"],
    ),
    "tsx": (
        """\
export function View({ name }: Props) {
  return <div>{name}</div>;
}
""",
        ["View"],
    ),
    "java": (
        """\
package a.b;

/** A cart. */
@Entity
public class Cart<T> extends Base {
    private int n;

    /** Makes one. */
    public Cart(int n) {
        this.n = n;
    }

    @Override
    public int add(T item) {
        return n;
    }

    public int getN() { return n; }

    static class Line {
        void show() {
            print();
        }
    }
}

interface Priced { int price(); }
enum Kind { A, B }
record Point(int x, int y) { }
""",
        [None, "Cart", "Cart.Cart", "Cart.add", "Cart.Line", "Cart.Line.show", "Priced", "Kind", "Point"],
    ),
    "go": (
        """\
package shop

import "fmt"

// Cart is what a customer buys.
type Cart[T any] struct {
	items []T
}

// Add puts an item into it.
func (c *Cart[T]) Add(item T) {
	c.items = append(c.items, item)
}

func main() {
	fmt.Println(1)
}
""",
        [None, "Cart", "Cart.Add", "main"],
    ),
    "rust": (
        """\
use std::fmt;

/// A cart.
#[derive(Debug)]
pub struct Cart<T> {
    items: Vec<T>,
}

impl<T> fmt::Display for Cart<T> {
    /// Shows it.
    #[inline]
    fn fmt(&self) -> i32 {
        1
    }
}

pub trait Priced {
    fn price(&self) -> i32;
}

mod tests {
    #[test]
    fn adds() {
        assert!(true);
    }
}
""",
        [None, "Cart", "Cart", "Cart.fmt", "Priced", "tests.adds"],
    ),
    "c": (
        """\
#include <stdio.h>
#ifdef X
/* Finds it. */
static char *find(const char *text)
{
    return 0;
}
#endif
struct cart { int n; };
typedef struct { int x; } Point;
int declared(void);
""",
        [None, "find", "cart", "Point"],
    ),
    "cpp": (
        """\
namespace shop {
// A cart.
template <typename T>
class Cart : public Base {
 public:
  Cart() : n(1) {
    open();
  }
  operator bool() const {
    return n;
  }
  int n;
};
template <class T>
std::vector<T> &Cart<T>::all(std::map<int, T> a) {
  return items;
}
bool operator<(const Cart &a, const Cart &b) {
  return a.n < b.n;
}
}
""",
        [None, "shop.Cart", "shop.Cart.Cart", "shop.Cart.operator bool", "shop.Cart.all", "shop.operator<"],
    ),
    "csharp": (
        """\
using System;
namespace Shop;
/// <summary>A cart.</summary>
[Serializable]
public class Cart : Base {
    public int N { get; set; }
    public Cart(int n) {
        N = n;
    }
    public void Add<T>(T item) {
        void Inner() {}
    }
}
record Point(int X);
""",
        [None, "Cart", "Cart.Cart", "Cart.Add", "Point"],
    ),
    "ruby": (
        """\
require "set"
module Shop
  # A cart.
  class Cart < Base
    attr_reader :items

    # Adds.
    def add(item)
      @items << item
    end

    def self.load
      new
    end
  end
end
""",
        [None, "Shop.Cart", "Shop.Cart.add", "Shop.Cart.load"],
    ),
    "php": (
        """\
<?php
namespace Shop;
/** A cart. */
class Cart extends Base {
    /** Adds. */
    public function add(int $item): int {
        return 1;
    }
}
trait Priced {
    function price() {
        return 1;
    }
}
function open() {
    return 1;
}
""",
        [None, "Cart", "Cart.add", "Priced", "Priced.price", "open"],
    ),
    "kotlin": (
        """\
package shop

/** A cart. */
class Cart(val n: Int) : Base() {
    constructor(a: String) : this(1) {
        start()
    }

    // Adds.
    fun add(item: Int): Int {
        return n
    }
}

data class Point(val x: Int)

fun String.shout(): String {
    return uppercase()
}
""",
        [None, "Cart", "Cart.constructor", "Cart.add", "Point", "shout"],
    ),
    "scala": (
        """\
package shop

/** A cart. */
class Cart(n: Int) extends Base {
  def add(item: Int): Int = {
    n + item
  }
}

object Cart {
  def empty: Cart = {
    new Cart(0)
  }
}

case class Point(x: Int)
""",
        [None, "Cart", "Cart.add", "Cart", "Cart.empty", "Point"],
    ),
    "swift": (
        """\
import Foundation

/// A cart.
public class Cart: Base {
    init(n: Int) {
        self.n = n
    }

    /// Adds.
    func add(_ item: Int) -> Int {
        return n
    }
}

extension Cart {
    func clear() {
        items = []
    }
}
""",
        [None, "Cart", "Cart.init", "Cart.add", "Cart", "Cart.clear"],
    ),
    "bash": (
        """\
set -e

# Says it.
say() {
  echo "$1"
}
say hello
""",
        [None, "say"],
    ),
}


@pytest.mark.parametrize("language", SOURCES)
def test_units_of_each_language_have_their_names(language):
    source, expected = SOURCES[language]
    assert symbols(source, language) == expected


@pytest.mark.parametrize("language", SOURCES)
def test_every_word_of_a_file_is_in_one_of_its_parts(language):
    source, _ = SOURCES[language]
    texts = "\n".join(part.text for part in code_parts(source, language))
    assert {word for word in source.split() if word not in texts} == set()


@pytest.mark.parametrize("language", [*SOURCES, "python"])
def test_any_beginning_of_a_file_can_be_read(language):
    source = SOURCES[language][0] if language in SOURCES else CART
    for end in range(0, len(source), 7):
        for part in code_parts(source[:end], language):
            assert part.text.strip() == part.text != ""
            assert 1 <= part.metadata["line"] <= part.metadata["end_line"] <= source.count("\n") + 1


@pytest.mark.parametrize("language", [*SOURCES, "python"])
def test_files_with_lines_that_are_missing_or_doubled_can_be_read(language):
    lines = (SOURCES[language][0] if language in SOURCES else CART).splitlines(keepends=True)
    chance = random.Random(0)
    for _ in range(20):
        source = "".join(chance.choices(lines, k=len(lines)))
        texts = "\n".join(part.text for part in code_parts(source, language))
        assert {word for word in source.split() if word.isalpha() and word not in texts} == set()


def test_a_comment_belongs_to_the_function_right_below_it():
    source = "x = 1  # of x\ndef f():\n    x\n    y\n\n# far\n\ndef g():\n    x\n    y\n\n# near\ndef h():\n    x\n    y\n"
    module, *functions = code_parts(source, "python")
    assert module.text == "x = 1  # of x\n\n# far"
    assert [part.text.splitlines()[0] for part in functions] == ["def f():", "def g():", "# near"]


def test_a_file_with_an_error_still_gives_its_functions():
    source = "def f(a):\n    x = = 1\n\ndef g(a):\n    return a\n\nclass Cart:\n    def add(self):\n        x +\n        y\n"
    assert {"f", "g", "Cart", "Cart.add"} <= set(symbols(source, "python"))


def test_a_long_function_is_cut_at_the_functions_in_it():
    inner = "".join(f"    function f{number}() {{\n      return {number};\n    }}\n" for number in range(40))
    plugin, *functions = code_parts(f"export function plugin() {{\n{inner}}}\n", "javascript")
    assert [part.metadata["symbol"] for part in functions] == [f"plugin.f{number}" for number in range(40)]
    assert "  function f7()" in plugin.text
    assert "return" not in plugin.text
    assert symbols("function plugin() {\n  function f() {\n    return 1;\n  }\n}\n", "javascript") == ["plugin"]


def test_letters_of_any_script_keep_their_places():
    source = 'name = "Löwe 🦁"\n\ndef grüße(wen):\n    """Grüße jemanden, z. B. 世界."""\n    return f"Hallo {wen} 🦁"\n'
    module, function = code_parts(source, "python")
    assert module.text == 'name = "Löwe 🦁"'
    assert function.text == source[source.index("def") :].strip()
    assert function.metadata["symbol"] == "grüße"


def test_classes_within_classes_of_any_depth_are_read():
    source = "".join(f"{' ' * depth}class C{depth}:\n" for depth in range(300)) + " " * 300 + "x = 1\n"
    assert len(symbols(source, "python")) > 200
    assert len(symbols("{" * 50_000, "javascript")) == 1


def test_an_empty_file_has_no_parts(tmp_path):
    file = tmp_path / "__init__.py"
    file.write_text("\n")
    assert list(read_code(file)) == []


def test_a_file_made_by_a_program_is_refused(tmp_path):
    file = tmp_path / "jquery.min.js"
    file.write_text("function f(){return 1}" * 2000)
    with pytest.raises(UnreadableFileError, match="44,000 characters") as error:
        list(read_code(file))
    assert error.value.kind == "generated"


def test_without_a_grammar_code_is_read_as_text(tmp_path, monkeypatch):
    file = tmp_path / "cart.py"
    file.write_text(CART)
    code._grammar.cache_clear()
    monkeypatch.setitem(sys.modules, "tree_sitter_python", None)
    try:
        (part,) = format_of(file).read(file)
    finally:
        code._grammar.cache_clear()
    assert (part.text, part.metadata, part.by_path) == (CART, {"language": "python"}, True)


def test_a_unit_stands_under_the_words_of_a_name_in_capitals():
    source = "class HTTPServer {\n  getUserName() {\n    return 1;\n  }\n  get_name() {\n    return 1;\n  }\n}\n"
    assert [(part.headings, part.metadata["symbol"]) for part in code_parts(source, "javascript")] == [
        (("http server",), "HTTPServer"),
        (("HTTPServer", "get user name"), "HTTPServer.getUserName"),
        (("HTTPServer", "get_name"), "HTTPServer.get_name"),
    ]


def test_what_a_grammar_does_not_get_through_is_read_as_text(monkeypatch):
    monkeypatch.setattr(code, "_SECONDS", 0.01)
    source = "a<" * 6_000  # takes C# 2 seconds, and .01 + 12,000 / 100,000 are left
    (part,) = code_parts(source, "csharp")
    assert (part.text, part.metadata) == (source, {"language": "csharp"})


def test_what_would_stay_open_to_its_end_is_not_parsed_at_all(monkeypatch):
    monkeypatch.setattr(code, "_MOST_OPEN", 50)
    for source, is_parsed in (("a < b;\n" * 50, True), ("a < b;\n" * 51, False), ("a < b; c > d;\n" * 99, True)):
        (part,) = code_parts(source, "csharp")
        assert part.text.strip() == source.strip()
        assert ("line" in part.metadata) == is_parsed


@pytest.mark.parametrize("suffix", [".py", ".h", ".TSX", ".kt", ".sh"])
def test_files_are_code_by_their_suffix(tmp_path, suffix):
    file = tmp_path / f"file{suffix}"
    file.write_text("x")
    assert format_of(file).name == "source code"
