"""Makes test/golden/chat: what Transformers renders, masks and tokenizes, for the tests of lib/chat.

Run from the repository root, with ../shared beside it, in an environment with transformers, trl and torch:

    python scripts/python/make_chat_golden.py

Conversations are kept as JSON text, because reading it is part of what is compared (1.0 stays 1.0, keys keep their
order). TRL's templates are Apache-2.0; of those that it took from models, only the ones of models under Apache-2.0 or
MIT are written into the golden file. Names of parts
(renderings, masks, ...) as arguments make only those; `--all FILE` writes the renderings of every template of TRL to FILE.
"""

import gzip
import hashlib
import json
import struct
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import jinja2
import tokenizers
import transformers
import trl
from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

SHARED = Path("../shared")
TARGET = Path("test/golden/chat")
TRL = Path(trl.__file__).parent / "chat_templates"
PERMISSIVE = ("qwen", "glm4", "gptoss", "deepseek", "phi3", "idefics3")
NOW = datetime(2026, 1, 5, 14, 3, 9)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}


class FixedDatetime(datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


chat_template_utils.datetime = FixedDatetime


def user(text):
    return {"role": "user", "content": text}


def assistant(text, **more):
    return {"role": "assistant", "content": text, **more}


def system(text):
    return {"role": "system", "content": text}


def tool(text, **more):
    return {"role": "tool", "content": text, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a place: 'now' or \"later\" <b>&c</b>",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Größe & Ort"},
                "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                "days": {"type": "integer", "minimum": 0, "maximum": 14},
                "where": {
                    "type": "object",
                    "properties": {"lat": {"type": "number"}, "lon": {"type": ["number", "null"]}},
                    "required": ["lat", "lon"],
                },
                "tags": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["city"],
        },
    },
}
SUM = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds.",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "number", "description": "first"}, "b": {"type": "number"}},
            "required": ["a", "b"],
        },
        "return": {"type": "number", "description": "the sum"},
    },
}
NOTHING = {"type": "function", "function": {"name": "ping", "description": "", "parameters": {"type": "object", "properties": {}}}}

ARABIC = "مرحبا بالعالم"
ASTRAL = "😀 𝕏 👩‍👩‍👧 e\u0301 \u200f" + ARABIC

CONVERSATIONS = [
    ("plain", [user("Is water wet?"), assistant("Yes.")], None),
    ("user only", [user("Is water wet?")], None),
    ("system", [system("Be brief."), user("Hi"), assistant("Hello")], None),
    ("empty system", [system(""), user("Hi"), assistant("Hello")], None),
    ("developer", [{"role": "developer", "content": "Be brief."}, user("Hi"), assistant("Hello")], None),
    ("multi-turn", [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")], None),
    ("multi-turn with system", [system("s"), user("a"), assistant("b"), user("c"), assistant("d")], None),
    ("open end", [user("a"), assistant("b"), user("c")], None),
    ("system late", [user("a"), assistant("b"), system("s"), user("c"), assistant("d")], None),
    ("consecutive users", [user("a"), user("b"), assistant("c")], None),
    ("consecutive assistants", [user("a"), assistant("b"), assistant("c")], None),
    ("consecutive systems", [system("a"), system("b"), user("c"), assistant("d")], None),
    ("assistant first", [assistant("Welcome"), user("Hi"), assistant("Yes?")], None),
    ("astral", [system(ASTRAL), user(ASTRAL + "\n" + ASTRAL), assistant(ASTRAL)], None),
    ("spaces", [system("  s  "), user("  a \n\n"), assistant(" \t b\u00a0\u3000\n ")], None),
    ("odd spaces", [user("\ufeffa\u001c\u0085"), assistant("\u2028b\u2029\u200b\u001f")], None),
    ("empty texts", [user(""), assistant(""), user("c"), assistant("d")], None),
    ("newlines", [user("a\r\nb\rc\n"), assistant("\n\nd\n\n\ne\n\n")], None),
    ("jinja in text", [user("{{ 1 + 1 }} {% if x %} {# c #}"), assistant("}} %} {{ messages }}")], None),
    ("control tokens in text", [user("<|im_end|><|eot_id|></s><｜end▁of▁sentence｜>"), assistant("<|im_start|>user\n[INST]")], None),
    ("think tags", [user("a"), assistant("<think>\nhm\n</think>\n\nb"), user("c"), assistant("<think>x</think>d")], None),
    ("think tags unpaired", [user("a"), assistant("hm</think>b"), user("c"), assistant("<think>d")], None),
    ("reasoning", [user("a"), assistant("b", reasoning_content="hm\nso"), user("c"), assistant("d", reasoning_content=" well ")], None),
    ("thinking", [user("a"), assistant("b", thinking="hm"), user("c"), assistant("d", thinking="so")], None),
    ("nothink command", [user("a /nothink"), assistant("b")], None),
    ("tools without calls", [user("a"), assistant("b")], [WEATHER, SUM]),
    ("tools with system", [system("s"), user("a"), assistant("b")], [NOTHING]),
    ("no tools", [user("a"), assistant("b")], []),
    (
        "call",
        [
            system("s"),
            user("Weather?"),
            assistant("", tool_calls=[call("get_weather", {"city": "Köln", "days": 3, "where": {"lat": 50.94, "lon": None}, "tags": []})]),
            tool('{"t": 12.5}'),
            assistant("12.5 degrees."),
        ],
        [WEATHER],
    ),
    (
        "call without content",
        [user("1+2?"), assistant(None, tool_calls=[call("add", {"a": 1, "b": 2})]), tool("3"), assistant("Three.")],
        [SUM],
    ),
    (
        "call with content absent",
        [user("1+2?"), {"role": "assistant", "tool_calls": [call("add", {"a": 1, "b": 2})]}, tool("3"), assistant("Three.")],
        [SUM],
    ),
    (
        "arguments as text",
        [user("1+2?"), assistant("", tool_calls=[call("add", '{"a": 1, "b": 2}', id="call_0001")]), tool("3", tool_call_id="call_0001", name="add"), assistant("Three.")],
        [SUM],
    ),
    (
        "arguments as text, no content",
        [user("1+2?"), assistant(None, tool_calls=[call("add", '{"a": 1, "b": 2}', id="call_0001")]), tool("3", tool_call_id="call_0001", name="add"), assistant("Three.")],
        [SUM],
    ),
    (
        "parallel calls",
        [
            user("1+2 and 3+4?"),
            assistant("Let me see.", tool_calls=[call("add", {"a": 1, "b": 2}, id="abcdefghi"), call("add", {"a": 3, "b": 4}, id="jklmnopqr")]),
            tool("3", tool_call_id="abcdefghi", name="add"),
            tool("7", tool_call_id="jklmnopqr", name="add"),
            assistant("3 and 7."),
            user("Thanks"),
            assistant("You are welcome."),
        ],
        [SUM, WEATHER],
    ),
    (
        "calls with reasoning",
        [
            user("1+2?"),
            assistant("", reasoning_content="I add.", tool_calls=[call("add", {"a": 1, "b": 2})]),
            tool("3"),
            assistant("3", reasoning_content="done"),
        ],
        [SUM],
    ),
    (
        "calls in a row",
        [
            user("1+2+3?"),
            assistant("", tool_calls=[call("add", {"a": 1, "b": 2})]),
            tool("3"),
            assistant("", tool_calls=[call("add", {"a": 3, "b": 3})]),
            tool("6"),
            assistant("6"),
        ],
        [SUM],
    ),
    (
        "strange arguments",
        [
            user("x"),
            assistant(
                "",
                tool_calls=[
                    call(
                        "add",
                        {"é\"\\\n": "\u007f\u2028😀'\"", "t": True, "f": False, "n": None, "list": [1, [2, {"k": []}]], "empty": {}},
                    )
                ],
            ),
            tool("'ok'"),
            assistant("y"),
        ],
        [SUM],
    ),
    ("empty calls", [user("a"), assistant("b", tool_calls=[]), user("c"), assistant("d")], None),
    ("tool first", [tool("1"), assistant("b")], None),
    ("parts", [user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]), assistant("c")], None),
    ("empty list", [], None),
    ("unknown role", [{"role": "critic", "content": "a"}, assistant("b")], None),
    ("names", [{"role": "user", "name": "Ann", "content": "a"}, assistant("b", name="Bob")], None),
]

# What JavaScript's numbers and objects would lose.
NUMBERS = (
    '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": '
    '{"name": "add", "arguments": {"10": 1.0, "9": -0.0, "a": 1e5, "b": 1E-7, "c": 12345678901234567890, "d": 0.1, '
    '"e": 1e16, "f": 123456789012345680.0, "g": [1.50, 2.0, 3], "h": 1e400, "i": -0, "j": 5e-324, "2": {"b": 1, "1": 2}}}}]}, '
    '{"role": "tool", "content": "y"}, {"role": "assistant", "content": "z"}]'
)
TEXTS = [
    {"name": name, "messages": json.dumps(messages, ensure_ascii=False), "tools": None if tools is None else json.dumps(tools, ensure_ascii=False)}
    for name, messages, tools in CONVERSATIONS
] + [{"name": "numbers", "messages": NUMBERS, "tools": json.dumps([SUM])}]

VARIANTS = [
    {"add_generation_prompt": False},
    {"add_generation_prompt": True},
    {"add_generation_prompt": True, "enable_thinking": False},
    {"add_generation_prompt": False, "enable_thinking": True, "open_thinking": True, "reasoning_effort": "high", "preserve_thinking": True},
]


def attempt(render):
    try:
        return render()
    except Exception as error:  # whatever a template makes of a conversation is what is recorded
        # The template's own words are compared; of other errors only that there is one.
        own = type(error) is jinja2.exceptions.TemplateError
        return {"error": str(error)} if own else {"error": type(error).__name__, "python": True}


def read(text):
    return None if text is None else json.loads(text)


def renderings(render):
    return [[attempt(lambda: render(read(t["messages"]), read(t["tools"]), v)) for v in VARIANTS] for t in TEXTS]


def by_template(source):
    def render(messages, tools, variant):
        [text], _ = chat_template_utils.render_jinja_template([messages], tools, chat_template=source, **TOKENS, **variant)
        return text

    return renderings(render)


def by_tokenizer(tokenizer):
    return renderings(lambda messages, tools, variant: tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, **variant))


def write(path, value):
    data = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
    path.write_bytes(gzip.compress(data, 9, mtime=0))
    print(path, path.stat().st_size)


VERSIONS = {module.__name__: module.__version__ for module in (transformers, trl, jinja2, tokenizers)}


# The sources of the built-in templates, for a vocabulary that has every token.
DUMP = """
import { BUILTIN_NAMES, builtinTemplate } from './lib/chat/builtin-templates.ts'
const added = { some: () => true }
console.log(JSON.stringify(BUILTIN_NAMES.map((name) => [name, builtinTemplate(name, { added, eos: {}, addsBos: true })])))
"""


def builtins():
    command = ["node", "--import", "tsx", "--input-type=module", "-e", DUMP]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main_renderings(all_templates):
    templates = [
        {"name": f"templates/{path.name}", "results": by_template(path.read_text())} for path in sorted((SHARED / "templates").glob("*.jinja"))
    ]
    for folder in sorted((SHARED / "tokenizers").iterdir()):
        tokenizer = AutoTokenizer.from_pretrained(folder)
        if tokenizer.chat_template:
            templates.append({"name": f"tokenizers/{folder.name}", "results": by_tokenizer(tokenizer)})
    for name, source in builtins():
        templates.append({"name": f"builtin/{name}", "source": source, "results": by_template(source)})
    for path in sorted(TRL.glob("*.jinja")):
        if all_templates or path.name.startswith(PERMISSIVE):
            source = path.read_text()
            templates.append({"name": f"trl/{path.name}", "source": source, "results": by_template(source)})
    return {"versions": VERSIONS, "variants": VARIANTS, "tokens": TOKENS, "conversations": TEXTS, "templates": templates}


def split_outside_quotes(line):
    parts, quote, start = [], None, 0
    for at, character in enumerate(line):
        if quote:
            quote = None if character == quote and line[at - 1] != "\\" else quote
        elif character in "'\"":
            quote = character
        elif character == ";":
            parts.append(line[start:at])
            start = at + 1
    return parts + [line[start:]]


# Expressions by themselves: the operators, methods, filters and tests of Python and Jinja.
VALUES = (
    '{"s": "Hällo Wörld", "e": "", "a": "😀ab😀", "w": " \\t x\\n y \\u00a0", "q": "it\'s \\"so\\" \\\\ \\n\\u0007é\\u200b", '
    '"n": null, "t": true, "f": false, "i": 7, "m": -7, "d": 2.5, "one": 1.0, "big": 123456789012345678901, "l": [3, 1, 2], '
    '"names": ["b", "A", "c", "B"], "nested": [[1, 2.0], [], {"k": null}], "o": {"b": 1, "a": "x", "items": 5, "C": [1]}, '
    '"rows": [{"n": "x", "v": 2}, {"n": "y", "v": 1}, {"n": "x"}], "num": {"2": "b", "1": "a"}, '
    '"msg": {"role": "user", "content": null}}'
)
EXPRESSIONS = """
s|length; a|length; e|length; l|length; o|length; nothing|length; n|length; i|length
s[0]; a[0]; a[-1]; a[1:3]; a[::-1]; s[:4]; s[-5:]; s[2:8:3]; l[5]; l[-1]; l[1:]; l[::2]; l[-2:]; l[::-1]; s[100]; s[5:2]; l[:100]
o.items; o['items']; o.b; o['b']; o.nothing; o['nothing']; n.x; nothing.x; nothing['x']; msg.content; msg.content.x; s.x; i.x; num['2']; l.0; l['0']; o[0]
o.get('a'); o.get('z'); o.get('z', 3); o.keys()|list; o.values()|list; o.items()|list; num.items()|list; msg.get('content')
n; t; f; i; m; d; one; big; l; names; nested; o; num; [n, t]; (1,); (1, 2); {'a': 1}; {'a': none, 1: 'b'}; none; None; True; true
q; [q]; [s]; [w]; ["'"]; ['"']; ["'" ~ '"']; ['\\x7f\\xad']; [a]
1 + 2; 1 + 2.0; 1.5 + 1.5; 7 / 2; 6 / 2; 7 // 2; m // 2; 7.0 // 2; m % 3; 7 % 3; 7.5 % 2; 2 ** 3; 2 ** -1; 2 ** 0.5; -i; -d; +i; t + 1; t + t; i * 2; d * 2; one * 3; big + 1; big * big; 1 / 0; 1 // 0; 1 % 0
'a' + 'b'; 'a' + 1; 1 + 'a'; 'a' + n; n + 'a'; nothing + 'a'; 'a' + nothing; l + [4]; l + 'a'; 'ab' * 3; l * 2; 'a' * -1; 'a' ~ 1 ~ n ~ t ~ 1.0 ~ nothing ~ l; 'a' - 'b'; l - l
1 == 1.0; 1 == t; '1' == 1; n == none; nothing == none; nothing == nothing2; l == [3, 1, 2]; l == (3, 1, 2); (1, 2) == (1, 2); o == o; {} == {}; {'a': 1} == {'a': 1.0}; nested == nested; 0 == false; '' == false
1 < 2; 'a' < 'b'; 'a' < 'B'; '😀' < '\\uffff'; l < [3, 2]; 1 < 'a'; n < 1; nothing < 1; 1 <= 1.0; t > f; 1 < 2 < 3; 1 < 3 < 2; (1 < 3) == true; 3 > 2 == true; 1 == 1 == 1; 1 in [1] == true
'l' in s; '' in s; 1 in s; 1 in l; 1.0 in l; 'a' in o; 'a' not in o; 'x' in n; 'x' in nothing; l in [[3, 1, 2]]; l in o; n in [none]; nothing in l; nothing in o; 'a' in 5
not e; not l; not 0; not 0.0; not one; not n; not nothing; not {}; not 'a'; e or 'x'; s or 'x'; s and e; n and 1; nothing or 1; t and 'y'; not t or t; not (t and f)
'y' if t else 'z'; 'y' if f; ('y' if f) is defined; 'a' if e else 'b' if n else 'c'
s.upper(); s.lower(); s.title(); s.capitalize(); 'ß'.upper(); 'aB cD'.swapcase(); "they're bill's".title(); 'ABC'.capitalize(); 'É'.lower(); 'ǆ'.upper(); 'o\\u0301x'.title()
w.strip(); w.lstrip(); w.rstrip(); 'xxaxx'.strip('x'); 'abcab'.strip('ba'); 'aab'.lstrip('a'); '😀a😀'.strip('😀'); s.strip(1); s.strip(none); '\\u001fa\\ufeff'.strip(); '\\u200ba'.strip()
s.split(); s.split('l'); s.split('l', 1); s.rsplit('l', 1); 'a,b,,c'.split(','); ''.split(); ''.split(','); ' a  b '.split(); ' a  b  c '.split(none, 1); ' a  b  c '.rsplit(none, 1); 'abc'.split(''); 'a</t>b'.split('</t>')[-1]; 'a b c'.split(' ', 0); 'a b c'.split(maxsplit=1); 'aXbX'.rsplit('X', 9)
'a\\nb\\r\\nc\\n'.splitlines(); 'a\\nb'.splitlines(true); ''.splitlines(); 'a\\u2028b'.splitlines(); 'a\\n\\nb'.splitlines()
s.startswith('Hä'); s.endswith('ld'); s.startswith(('x', 'H')); s.startswith(1); 'abc'.startswith('b', 1); 'abc'.endswith('b', 0, 2); e.startswith('')
s.replace('l', 'L'); s.replace('l', 'L', 1); 'aaa'.replace('', '-'); 'aaa'.replace('', '-', 2); s.replace('zz', 'y'); 'a.b'.replace('.', '$&'); 'abab'.replace('ab', '')
s.find('l'); s.find('z'); a.find('b'); s.rfind('l'); s.index('z'); s.count('l'); s.count(''); a.count('😀'); 'x'.join(['a', 'b']); ', '.join(l); ''.join([]); 'x'.join('abc')
'ab'.isdigit(); '12'.isdigit(); '²'.isdigit(); ''.isdigit(); 'é'.isalpha(); 'a1'.isalnum(); ' '.isspace(); 'AB'.isupper(); 'ab1'.islower(); '½'.isnumeric(); '1'.isdecimal(); '12'.zfill(5); '-1'.zfill(4); 'a'.ljust(3) ~ '|'; 'a'.rjust(3); 'ab'.center(5) ~ '|'; 'abc'.center(6, '*'); 'a'.center(4, '-')
'abc'.removeprefix('a'); 'abc'.removesuffix('c'); 'a=b=c'.partition('='); 'a=b=c'.rpartition('='); 'abc'.partition('x'); '{} {}'.format(1, 'b'); '{0}{1}{0}'.format('a', 2); '{x}'.format(x=1.0); '{{}}'.format(); '{}'.format(); '%s %s' % (1, 'b'); '%d' % 3.9; '%s' % 'x'; '%s' % n; '%s %s' % 'x'; '100%%' % ()
l.append(1); o.update({}); o.pop('a'); l.index(1); l.index(9); names.count('b'); o.copy() == o
s|upper; n|upper; nothing|upper; i|upper; s|title; 'a-b c(d'|title; s|capitalize; w|trim; w|trim ~ '|'; n|trim; 'xax'|trim('x'); s|lower; 5|string + 'a'; one|string; l|string; nothing|string
l|first; l|last; e|first; []|first; []|last; s|first; o|first; nothing|first; l|sort; names|sort; names|sort(case_sensitive=true); names|sort(reverse=true); l|sort(true); rows|sort(attribute='n')|map(attribute='n')|list; [1, 'a']|sort; l|reverse|list; s|reverse; l|max; l|min; names|max; []|max; l|sum; []|sum; [0.5, 1]|sum; rows[:2]|sum(attribute='v'); names|unique|list; [1, 1.0, 2]|unique|list
l|join; l|join(', '); names|join('-'); nested|join('|'); s|join('.'); n|join; rows|join(',', attribute='n'); nothing|join('x'); o|join(','); (1, 'a')|join
rows|map(attribute='v')|list; rows|map(attribute='v', default=0)|list; names|map('upper')|list; names|map('replace', 'b', 'x')|join; rows|selectattr('v')|list; rows|selectattr('v', 'defined')|list|length; rows|rejectattr('v', 'equalto', 1)|list; rows|selectattr('n', '==', 'x')|list|length; rows|selectattr('n', 'in', ['y'])|list; l|select('odd')|list; l|reject('gt', 1)|list; l|select|list; [0, 1, '', n]|select|list; rows|groupby('n')|list; rows|map('nope')|list; l|select('nope')|list
'7'|int; '7.9'|int; 'x'|int; 'x'|int(3); d|int; t|int; n|int; '0x1f'|int(0, 16); ' 5 '|int; '1_000'|int; '2.5'|float; 'x'|float; i|float; '1e3'|float; n|float(1.5); m|abs; -2.5|abs; 'a'|abs; d|round; 3.5|round; -2.5|round; 2.675|round(2); 2.5|round(0, 'ceil'); 2.123|round(2, 'floor'); i|round; 1234.5|round(-2)
nothing|default('x'); n|default('x'); e|default('x'); e|default('x', true); n|default('x', boolean=true); nothing|d; o.z|default(1); s|default('x')
s|tojson; q|tojson; a|tojson; n|tojson; t|tojson; d|tojson; one|tojson; big|tojson; l|tojson; nested|tojson; o|tojson; num|tojson; nothing|tojson; o|tojson(indent=2); o|tojson(indent=0); nested|tojson(indent=4); o|tojson(sort_keys=true); o|tojson(separators=(',', ':')); s|tojson(ensure_ascii=true); a|tojson(true); {}|tojson(indent=2); []|tojson; (1, 2)|tojson; {1: 2, none: 3, true: 4}|tojson; [nothing]|tojson; 1e16|tojson; 0.00001|tojson; '\\x7f\\u2028</script>'|tojson; range(3)|list|tojson; o|tojson(indent='--'); [[], {}, [1]]|tojson(indent=1); -0.0|tojson; 1e-7|tojson
'a\\nb\\n\\nc'|indent; 'a\\nb'|indent(2, true); 'a\\n\\nb'|indent(2, blank=true); 'a\\nb'|indent('> '); s|replace('l', 'L'); s|replace('l', 'L', 1); i|replace('7', '8'); 'abc'|list; o|list; nothing|list; n|list; o|items|list; nothing|items|list; n|items; o|dictsort; o|dictsort(by='value'); o|dictsort(reverse=true); o|dictsort(true); l|batch(2)|list; l|batch(2, 0)|list; [1, 2, 3, 4, 5]|slice(2)|list; [1, 2, 3, 4, 5]|slice(3, 0)|list; 'foo bar baz qux'|truncate(9); 'foo bar baz qux'|truncate(9, true); 'foo bar'|truncate(9); 'a b c'|wordcount; '%s-%s'|format('a', 1); '%(x)s'|format(x=2); 'ab'|center(6) ~ '|'; s|safe; l|count; s|nope
n is none; nothing is none; nothing is defined; n is defined; o.z is defined; o.z is undefined; s is string; i is string; i is number; d is number; t is number; one is integer; i is integer; t is integer; one is float; d is float; t is boolean; t is true; i is true; f is false; o is mapping; l is mapping; l is sequence; s is sequence; o is sequence; n is sequence; l is iterable; s is iterable; o is iterable; i is iterable; n is iterable; nothing is iterable; nothing is sequence; range is callable; s is callable; s is lower; 'ab' is lower; 'AB' is upper; '1' is upper; i is odd; i is even; t is odd
i is divisibleby 7; i is divisibleby(2); i is not divisibleby 2; i is eq 7; s is equalto e; i is in l; 1 is in l; i is not in [7]; n is sameas none; t is sameas true; 1 is sameas true; i is gt 5; i is le(7); i is ne 8; i is lt 5 or t; o.b is eq o['b']; i is nope; i is defined and i is odd; not i is none; (i is eq 7) == true; 1.0 is sameas 1
range(3)|list; range(1, 4)|list; range(5, 0, -2)|list; range(0)|list; range(3); range(1, 2, 0); range('a'); dict(a=1)|tojson; dict({'x': 1}, b=2)|tojson; namespace(a=1).a; namespace().b is defined; namespace({'c': 3}).c; raise_exception('no ' ~ i); strftime_now('%d %b %Y %H:%M %p %j %y %A %a %B %I %S %%'); undefined_function(); s(); n(); o.nope(); s.nope()
joiner(', ')(); cycler('a', 'b').next(); dict(a=1, **{'b': 2})|tojson; '{}-{}'.format(*[1, 2])
s.x.y; o['z']['y']; l[0]['x']; l['a']; (1, 2)[1]; (1, 2)[0:1]; {'a': {'b': 3}}.a.b; {'a': 1}['a']; [1, 2][0]; 'abc'[1]; 'abc'[-1:]; 'abc' 'def'; "a\\tb\\\\"; '\\u00e9\\x41'; 'a\\'b'
i in [1, 7] and s; -i|abs; -1 ** 2; 2 ** 3 ** 2; 2 + 3 * 4; (2 + 3) * 4; 10 - 2 - 3; 7 // 2 * 2; not i == 7; i == 7 and not f; 'a' ~ 'b' == 'ab'; 1 + 1 ~ 2; 'a' in 'abc' and true; 5 if i > 3 else 6
1000000 * 1000000; 99999999999 * 99999999999; 0.1 + 0.2; 1e3; 100.0; 1e22 * 10; 1.0e-5; 3.0; 12345678.9; 1 / 3; 2 / 3 * 3; 1e15 * 10; 1e15 + 0.5
""".strip().splitlines()
BLOCKS = [
    "{% for x in l %}{{ loop.index }}/{{ loop.length }}:{{ x }}{% if not loop.last %},{% endif %}{% endfor %}",
    "{% for x in l %}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.previtem }}{{ loop.nextitem }}{{ loop.depth }}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }} {% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}{% for x in nothing %}a{% else %}none{% endfor %}",
    "{% for x in n %}a{% endfor %}",
    "{% for x in i %}a{% endfor %}",
    "{% for k, v in o.items() %}{{ k }}={{ v }};{% endfor %}{% for k in o %}{{ k }}{% endfor %}{% for c in a %}{{ c }}|{% endfor %}",
    "{% for k, v in l %}{{ k }}{% endfor %}",
    "{% for k, v in [[1, 2, 3]] %}{{ k }}{% endfor %}",
    "{% for x in l if x > 1 %}{{ x }}{{ loop.index }}{{ loop.last }}{% endfor %}",
    "{% for x in l if x > 9 %}a{% else %}none{% endfor %}",
    "{% for x in l %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %}{% for x in l %}{{ x }}{% if x == 1 %}{% break %}{% endif %}{% endfor %}",
    "{% for x in l %}{% for y in names %}{{ loop.depth }}{% if y == 'A' %}{% break %}{% endif %}{{ y }}{% endfor %}{{ x }}{% endfor %}",
    "{% set x = 1 %}{% for y in l %}{{ x }}{% set x = y %}{{ x }}{% endfor %}{{ x }}",
    "{% set x = 1 %}{% if t %}{% set x = 2 %}{% endif %}{{ x }}{% if f %}{% set z = 1 %}{% endif %}{{ z is defined }}",
    "{% set ns = namespace(x=1) %}{% for y in l %}{% set ns.x = ns.x + y %}{% endfor %}{{ ns.x }}",
    "{% set o.x = 1 %}",
    "{% set a1, b1 = 1, 2 %}{{ a1 }}{{ b1 }}{% set c1 = (1, 2) %}{{ c1 }}",
    "{% set x %}a{{ i }}b{% endset %}{{ x }}{{ x is string }}{% set x | upper %}abc{% endset %}{{ x }}",
    "{% set x %}{% set y = 1 %}{% endset %}{{ y is defined }}",
    "{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}{{ m(1, c=3) }}{{ m() }}{{ m(b=1, a=2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{{ m(z=2) }}",
    "{% macro m(a) %}{{ a }}{{ varargs }}{{ kwargs }}{% endmacro %}{{ m(1, 2, z=3) }}",
    "{% macro m(a) %}{{ x }}{{ a }}{% endmacro %}{% set x = 5 %}{{ m(1) }}",
    "{% macro m(k) %}{% if k > 0 %}{{ k }}{{ m(k - 1) }}{% endif %}{% endmacro %}{{ m(5) }}",
    "{% macro m() %}<{{ caller() }}>{% endmacro %}{% call m() %}in{{ i }}{% endcall %}",
    "{% macro m() %}{{ caller('a', 'b') }}{% endmacro %}{% call(x, y) m() %}{{ y }}{{ x }}{% endcall %}",
    "{% macro m(a) %}{{ a }}{% endmacro %}{% set r = m(1) %}{{ r ~ 'x' }}{{ r is string }}{{ m(2)|length }}{{ m(1) + 'y' }}",
    "{% macro m() %}{% set q2 = 1 %}{{ loop is defined }}{% endmacro %}{% for x in [1] %}{{ m() }}{% endfor %}{{ q2 is defined }}",
    "{% filter upper %}abc{{ i }}{% endfilter %}{% filter replace('a', 'b') %}aaa{% endfilter %}",
    "{% generation %}{% set gx = 1 %}a{% endgeneration %}{{ gx is defined }}",
    "{% set gx = 0 %}{% for x in l %}{% generation %}{{ x }}{% set gx = x %}{{ gx }}{% endgeneration %}{{ gx }}{% endfor %}",
    "  {% if t %}\n  a\n  {% endif %}\n  {{ i }}\n\n",
    "a {%- if t -%} b {%- endif -%} c",
    "a\n  {# comment #}\n  b {#- c -#} d",
    "{{- i -}}  x  {{- i }}\n{{ i -}}\n y",
    "{% if t %}\n\n  x\n{% else %}\ny\n{% endif %}\n\nz\n\n",
    "{% if n %}a{% elif nothing %}b{% elif i == 7 %}c{% else %}d{% endif %}",
    "x{% for x in l -%}\n  {{ x }}\n{%- endfor %}\ny",
    "\t{% set z = 1 %}\t{% set y = 2 %}\n{{ z }}",
    "{{ i }}\n\n{% if t %}\n{% endif %}\n\n",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'a': 1}|length }}{{ {} }}",
    "{{ '}}' }}{{ '{%' }}{% if '%}' == '%}' %}a{% endif %}",
    "{% if not loop is defined %}a{% endif %}{{ self is defined }}",
    "{% set messages = l[1:] %}{% for x in messages %}{{ x }}{{ messages[loop.index0 - 1] }}{% endfor %}",
    "{% for x in l|sort %}{{ x }}{% endfor %}{% for x in l|reverse %}{{ x }}{% endfor %}{% for x in range(2) %}{{ x }}{% endfor %}",
    "{% for (k, v) in o|dictsort %}{{ k }}{{ v }}{% endfor %}",
    "{% macro m(a=1) %}[{{ a }}]{% endmacro %}{{ m() }}{{ m(nothing) }}{{ m(a=nothing) }}{{ m(none) }}",
    "{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}",
    "{{ o.get('z', nothing) }}{{ o.get('z', none) }}{{ o.get('b', 2) }}",
    "{% if [] | select %}yes{% endif %}{% if rows | selectattr('nope') %}yes{% endif %}{% if {} | items %}yes{% endif %}",
    "{% if [] | map('upper') %}yes{% endif %}{% if [] | sort %}yes{% endif %}{% if [] | reverse %}yes{% endif %}{% if [] | unique %}yes{% endif %}",
    "{% set g = l | select('odd') %}{{ g | list }}{{ g | list }}{% for x in g %}{{ x }}{% endfor %}",
    "{% set g = names | map('upper') %}{{ g | first }}{{ g | first }}{{ g | list }}",
    "{% set g = l | reverse %}{{ g | first }}{{ g | join(',') }}",
    "{{ rows | selectattr('v') | length }}",
    "{{ rows | map(attribute='n') | last }}",
    "{{ (rows | map(attribute='n'))[0] is defined }}",
    "{{ rows | map(attribute='n') | tojson }}",
    "{% set g = rows | map(attribute='n') %}{{ 'y' in g }}{{ g | list }}",
    "{{ rows | map(attribute='n') is iterable }}{{ rows | map(attribute='n') is sequence }}{{ rows | map(attribute='n') is mapping }}",
    "{% for x in rows | selectattr('v') %}{{ loop.length }}{{ loop.last }}{{ x.n }}{% endfor %}",
    "{{ rows | groupby('n') | map('first') | list }}{{ l | batch(2) | map('sum') | list }}",
    "{{ o.keys()[0] is defined }}{{ o.items() | first }}{{ o.values() | last }}{{ o.keys() | length }}{{ 'a' in o.keys() }}",
    "{{ o.keys() | tojson }}",
    "{{ o.keys() == ['b', 'a', 'items', 'C'] }}{{ o.keys() + [] }}",
    "{% if {}.keys() %}yes{% else %}no{% endif %}{{ o.keys()[:1] }}",
    "{{ o.items() is sequence }}{{ o.items() is iterable }}{{ o.keys() | sort }}{{ o.keys() | join }}",
]
SOURCES = ["{{ " + part.strip() + " }}" for line in EXPRESSIONS for part in split_outside_quotes(line)] + BLOCKS


def expressions():
    def render(source):
        [text], _ = chat_template_utils.render_jinja_template([[]], None, chat_template=source, **json.loads(VALUES))
        return text

    return {"values": VALUES, "cases": [[source, attempt(lambda: render(source))] for source in SOURCES]}


def masks():
    """Character spans of generation blocks, and token masks where a tokenizer of ../shared has the template's tokens."""
    result = []
    for path in sorted(TRL.glob("*_training.jinja")):
        if not path.name.startswith(PERMISSIVE):
            continue
        source = path.read_text()
        folder = "qwen3" if path.name.startswith("qwen") else "deepseek_v3" if path.name.startswith("deepseek") else None
        # Not AutoTokenizer: for DeepSeek's tokenizer_class it would build another tokenizer than tokenizer.json describes.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(SHARED / "tokenizers" / folder) if folder else None

        def spans(messages, tools):
            [text], [indices] = chat_template_utils.render_jinja_template(
                [messages], tools, chat_template=source, return_assistant_tokens_mask=True, **TOKENS
            )
            return [list(pair) for pair in indices]

        def mask(messages, tools):
            encoded = tokenizer.apply_chat_template(
                messages, tools=tools, chat_template=source, return_assistant_tokens_mask=True, return_dict=True
            )
            return {"ids": digest(encoded["input_ids"]), "mask": "".join(str(bit) for bit in encoded["assistant_masks"])}

        cases = []
        for t in TEXTS:
            case = {"spans": attempt(lambda: spans(read(t["messages"]), read(t["tools"])))}
            if tokenizer:
                case["tokens"] = attempt(lambda: mask(read(t["messages"]), read(t["tools"])))
            cases.append(case)
        result.append({"name": path.name, "tokenizer": folder, "cases": cases})
    return result


def digest(ids):
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from strings(item)


def data_files():
    return sorted(path for path in (SHARED / "data").rglob("*.json*") if path.is_file())


def rows(path):
    text = path.read_text()
    return [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else json.loads(text)


def data_ids():
    """Ids of every text in ../shared/data: sha256 over all of a file, and over every 25th text, as int32."""
    result = {}
    for path in data_files():
        texts = list(strings(rows(path)))
        for folder in sorted((SHARED / "tokenizers").iterdir()):
            tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
            tokenizer.no_truncation()
            tokenizer.no_padding()
            every, sample = hashlib.sha256(), hashlib.sha256()
            for start in range(0, len(texts), 1000):
                for index, encoding in enumerate(tokenizer.encode_batch(texts[start : start + 1000], add_special_tokens=False)):
                    packed = struct.pack(f"<{len(encoding.ids)}i", *encoding.ids)
                    every.update(packed)
                    if (start + index) % 25 == 0:
                        sample.update(packed)
            result.setdefault(str(path.relative_to(SHARED / "data")), {})[folder.name] = [every.hexdigest(), sample.hexdigest()]
    return result


def data_renderings():
    """Renderings of rows with messages: the first 12 hexadecimal digits of each one's sha256, or 'error'."""
    result = {}
    for path in data_files():
        if "messages" not in path.name:
            continue
        found = rows(path)
        found = found if len(found) < 1000 else found[::50]
        for folder in sorted((SHARED / "tokenizers").iterdir()):
            tokenizer = AutoTokenizer.from_pretrained(folder)
            if not tokenizer.chat_template:
                continue
            done = [attempt(lambda: tokenizer.apply_chat_template(row["messages"], tools=row.get("tools"), tokenize=False)) for row in found]
            result.setdefault(str(path.relative_to(SHARED / "data")), {})[folder.name] = [
                hashlib.sha256(text.encode()).hexdigest()[:12] if isinstance(text, str) else "error" for text in done
            ]
    return result


def main():
    if len(sys.argv) == 3 and sys.argv[1] == "--all":
        write(Path(sys.argv[2]), main_renderings(True))
        return
    TARGET.mkdir(parents=True, exist_ok=True)
    parts = {
        "expressions": expressions,
        "masks": masks,
        "renderings": lambda: main_renderings(False),
        "data-renderings": data_renderings,
        "data-ids": data_ids,
    }
    for name in sys.argv[1:] or parts:
        write(TARGET / f"{name}.json.gz", parts[name]())


main()
