"""The catalogue of malformed files: what each is, and what its uploader is told.

Small ones lie in `tests/data/malformed`; large ones, archives and Parquet are made here.
"""

import gzip
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from trainer.config import Task
from trainer.inspection import Wish
from trainer.records import Format, Limits, Reading

FOLDER = Path(__file__).parent / "data" / "malformed"
CONTEXT_LENGTH = 512
LIMITS = Limits(max_file_bytes=4 << 20, max_problems=20)
"""A smaller bound than the service's, so that a bomb needs seconds and not minutes to be one."""
ROW = b'{"prompt": "Is the shop open?", "completion": "Yes, until six."}\n'


@dataclass(frozen=True)
class Case:
    """A file, and where and why it is refused."""

    name: str
    """In FOLDER, unless `make` is given."""
    place: str
    reason: str
    advice: str
    """Words of it."""
    make: Callable[[], bytes] | None = None
    wish: Wish = field(default_factory=Wish)

    def content(self) -> bytes:
        """The file's bytes."""
        return self.make() if self.make is not None else (FOLDER / self.name).read_bytes()


def lines(*answers: str) -> bytes:
    """Rows with these answers."""
    rows = [{"prompt": f"Which? {index}", "completion": answer} for index, answer in enumerate(answers)]
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def parquet(columns: dict[str, object], **options: object) -> bytes:
    """A Parquet file."""
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def gzip_bomb() -> bytes:
    """16 MiB of one line in 16 KiB."""
    return gzip.compress(b'{"prompt": "' + b" " * (16 << 20))


def many_rows_bomb() -> bytes:
    """16 MiB of good rows in gzip."""
    line = lines("x" * 100_000)
    return gzip.compress(line * ((16 << 20) // len(line)))


def dictionary_bomb() -> bytes:
    """A million times the same half MiB, which Parquet keeps once: 100 kB that would be 500 GB."""
    texts = pa.array(["x" * (1 << 19)])
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int32()), texts)
    return parquet({"text": column})


def group_bomb() -> bytes:
    """One row of 16 MiB."""
    return parquet({"text": ["x" * (16 << 20)]}, compression="zstd")


def overwritten(content: bytes, begin: int, other: bytes) -> bytes:
    """The content with other bytes in its middle."""
    return content[:begin] + other + content[begin + len(other) :]


SMALL_PARQUET = parquet({"prompt": ["Hi", "Bye"], "completion": ["Hello", "Goodbye"]})
LABELS = Wish(task=Task.CLASSIFICATION)
MAPPED = Wish(reading=Reading(mapping={"prompt": "question", "completion": "answer"}))

CASES = [
    Case(
        "assistant_first.jsonl", "line 1", "messages[0].role is assistant where user must stand", "take turns"
    ),
    Case("bad_escape.jsonl", "line 1", "not JSON: invalid \\escape at column 15", "backslash twice"),
    Case("bom_in_the_middle.jsonl", "line 2", "a byte order mark inside the file", "first character"),
    Case(
        "both_shapes.jsonl",
        "line 1",
        'the row has "messages" and also "prompt" or "completion"',
        "Keep either",
    ),
    Case("carriage_returns_only.jsonl", "line 1", "not JSON: extra data at column 66", "newline"),
    Case("comma_after_row.jsonl", "line 1", "not JSON: extra data at column 65", "Remove the comma"),
    Case("completion_is_empty.jsonl", "line 1", '"completion" is empty', "Write some text"),
    Case("content_is_blank.jsonl", "line 1", "messages[1].content is empty", "Write some text"),
    Case("content_is_empty.jsonl", "line 1", "messages[0].content is empty", "Write some text"),
    Case("content_is_null.jsonl", "line 1", "messages[1].content is null, not a string", "double quotes"),
    Case("content_is_parts.jsonl", "line 1", "messages[0].content is a list, not a string", "double quotes"),
    Case("duplicate_message_key.jsonl", "line 1", 'the key "role" stands twice in one object', "Keep one"),
    Case("duplicate_row_key.jsonl", "line 1", 'the key "prompt" stands twice in one object', "Keep one"),
    Case("empty.jsonl", "line 1", "the file has no rows", "one row a line"),
    Case("ends_with_user.jsonl", "line 1", "the last message is the user's", "assistant's answer"),
    Case("escaped_nul.jsonl", "line 1", '"prompt" contains the character NUL', "Remove \\u0000"),
    Case("float_overflow.jsonl", "line 1", "the number 1e999 is too large or too long", "0 or 1"),
    Case("huge_integer.jsonl", "line 1", "the number 99999999999999999999... is too large", "0 or 1"),
    Case("infinity.jsonl", "line 1", "-Infinity is not a JSON number", "finite"),
    Case("late_system.jsonl", "line 1", "messages[1] is a system message, but not the first", "at most one"),
    Case("latin1.jsonl", "line 2", "not UTF-8 at byte 16 of the line (0xe9)", "as UTF-8"),
    Case("lone_surrogate.jsonl", "line 1", '"prompt" contains half of a surrogate pair', "both halves"),
    Case("message_is_text.jsonl", "line 1", "messages[0] is a string, not an object", '"role"'),
    Case("messages_is_empty.jsonl", "line 1", '"messages" is empty', "at least one user"),
    Case("messages_is_text.jsonl", "line 1", '"messages" is a string, not a list', '"role"'),
    Case(
        "missing_comma.jsonl",
        "line 2",
        "not JSON: expecting ',' delimiter at column 16",
        "one complete JSON object",
    ),
    Case("nan.jsonl", "line 1", "NaN is not a JSON number", "finite"),
    Case("no_completion.jsonl", "line 1", '"completion" is missing', "both"),
    Case("no_content.jsonl", "line 1", 'messages[1] has no "content"', '"role" and "content"'),
    Case(
        "no_keys.jsonl",
        "line 1",
        'the row has neither "messages" nor "prompt" (found: no keys)',
        '"completion"',
    ),
    Case("no_role.jsonl", "line 1", 'messages[0] has no "role"', '"role" and "content"'),
    Case(
        "nothing_trained.jsonl", "line 1", "no assistant message is trained on: each has weight 0", "weight 1"
    ),
    Case(
        "nul_byte.jsonl", "line 1", "a NUL byte at byte 14 of the line: binary data or UTF-16", "plain text"
    ),
    Case("only_blank_lines.jsonl", "line 1", "the file has no rows", "one row a line"),
    Case("only_bom.jsonl", "line 1", "the file has no rows", "one row a line"),
    Case("only_system.jsonl", "line 1", "the row has only a system message", "Add a user message"),
    Case("prompt_is_a_list.jsonl", "line 1", "prompt[0] is a string, not an object", '"role": "user"'),
    Case("role_in_capitals.jsonl", "line 1", 'messages[0].role is "User"', "system, user or assistant"),
    Case(
        "role_is_a_number.jsonl",
        "line 1",
        "messages[0].role is a number, not a string",
        "system, user or assistant",
    ),
    Case("row_is_a_list.jsonl", "line 2", "the row is a list, not an object", '"messages"'),
    Case("row_is_a_string.jsonl", "line 1", "the row is a string, not an object", '"messages"'),
    Case("row_is_null.jsonl", "line 3", "the row is null, not an object", '"messages"'),
    Case("rows.zip", "line 1", "the file looks like a zip archive or an Office document", "Unpack it"),
    Case(
        "single_quotes.jsonl",
        "line 1",
        "not JSON: expecting property name enclosed in double quotes at column 2",
        "single quotes",
    ),
    Case(
        "spread_over_lines.json",
        "line 1",
        "not JSON: expecting property name enclosed in double quotes at column 2",
        "on one line",
    ),
    Case("surrogate_bytes.jsonl", "line 1", "not UTF-8 at byte 13 of the line (0xed)", "as UTF-8"),
    Case("tab_in_text.jsonl", "line 1", "not JSON: invalid control character at column 14", "a tab as \\t"),
    Case("too_deep.jsonl", "line 1", "nested deeper than 32 levels at column 43", "flat"),
    Case("too_many_keys.jsonl", "line 1", "more than 64 keys in one object at column 637", "few keys"),
    Case("truncated.jsonl", "line 2", "the last line is cut off", "whole"),
    Case("truncated_in_a_character.jsonl", "line 2", "the last line is cut off", "whole"),
    Case("two_rows_on_a_line.jsonl", "line 1", "not JSON: extra data at column 66", "line of its own"),
    Case("two_users.jsonl", "line 3", "messages[1].role is user where assistant must stand", "take turns"),
    Case("unknown_message_key.jsonl", "line 1", 'unknown key "name" in messages[0]', "Remove it"),
    Case("unknown_role.jsonl", "line 1", 'messages[1].role is "tool"', "Turns of tools"),
    Case("tools.jsonl", "line 1", 'the row offers tools: it has "tools"', "Turns of tools"),
    Case(
        "openai_preference_of_tools.jsonl", "line 1", '"input" offers tools: it has "tools"', "Turns of tools"
    ),
    Case("openai_preference_without_output.jsonl", "line 1", '"non_preferred_output" is missing', "Write"),
    Case(
        "completion_begins_with_user.jsonl",
        "line 1",
        "prompt + completion[1].role is user where assistant must stand",
        "take turns",
    ),
    Case("unknown_row_key.jsonl", "line 1", 'unknown key "source" in the row', "Remove it"),
    Case("utf16.jsonl", "line 1", "the file looks like UTF-16 text", "as UTF-8"),
    Case(
        "utf16_without_bom.jsonl",
        "line 1",
        "a NUL byte at byte 2 of the line: binary data or UTF-16",
        "plain text in UTF-8",
    ),
    Case("utf32.jsonl", "line 1", "the file looks like UTF-32 text", "as UTF-8"),
    Case(
        "very_long_role.jsonl", "line 1", f'messages[0].role is "{"u" * 40}..."', "system, user or assistant"
    ),
    Case("weight_is_text.jsonl", "line 1", "messages[1].weight is a string", "Use 1"),
    Case("weight_is_true.jsonl", "line 1", "messages[1].weight is true or false", "Use 1"),
    Case("weight_is_two.jsonl", "line 1", "messages[1].weight is 2", "Use 1"),
    Case("weight_of_user.jsonl", "line 1", "messages[0] has a weight, but its role is user", "Remove it"),
    Case(
        "alpaca_history.jsonl",
        "line 1",
        '"history" is not a list of pairs',
        'Write [["question", "answer"], ...].',
    ),
    Case("alpaca_without_output.jsonl", "line 1", '"output" is missing', "An Alpaca row needs"),
    Case(
        "behind_quote.csv",
        "line 2",
        "something stands behind a closing quote at column 5",
        "Write a double quote",
    ),
    Case("behind_the_list.json", "row 2", "something stands behind the end of the list", "Remove it."),
    Case("blank_text.jsonl", "line 1", '"text" is empty', "Write some text there,"),
    Case(
        "damaged.parquet",
        "row 1",
        "the file cannot be read as Parquet within bounds of memory and time",
        "It may be damaged;",
    ),
    Case(
        "double_column.csv", "line 1", 'the column "prompt" stands twice in the header', "Keep one of them."
    ),
    Case("empty_cell.csv", "line 2", '"completion" is empty', "Write some text there,"),
    Case("empty_list.json", "line 1", "the file has no rows", "Write one row a"),
    Case("latin1.csv", "line 2", "not UTF-8 at byte 4 of the line (0xe9)", "Save the file as"),
    Case("list_cut_off.json", "row 2", "the last row is cut off", "Upload the file again,"),
    Case("list_with_a_last_comma.json", "row 2", "no row stands behind the last comma", "Remove the comma."),
    Case(
        "neither_shape.jsonl",
        "line 1",
        'the row has neither "messages" nor "prompt" (found: "question", "answer")',
        '"completion"',
    ),
    Case("no_rejected.jsonl", "line 1", '"rejected" is missing', 'Write {"prompt": "...", "chosen":'),
    Case("number_in_list.json", "row 2", "the row is a number, not an object", '"completion"'),
    Case(
        "number_in_the_middle.jsonl",
        "line 2",
        '"completion" is a number, not a string',
        'Write "completion" as text',
    ),
    Case("only_a_header.csv", "line 1", "the file has no rows", "Write one row a"),
    Case("open_quote.csv", "line 2", "a quoted text begins here and has no end", "Close it with a"),
    Case(
        "other_columns.csv",
        "line 2",
        'the row has neither "messages" nor "prompt" (found: "question", "answer")',
        '"completion"',
    ),
    Case(
        "prompt_ends_with_assistant.jsonl",
        "line 1",
        "the prompt does not end with the user",
        "End it with what",
    ),
    Case("ragged.csv", "line 3", "the row has 4 fields, but the header 2", "Put texts that hold"),
    Case("same_answers.jsonl", "line 1", '"chosen" and "rejected" are the same', "Remove the row: nothing"),
    Case(
        "sharegpt_begins_with_gpt.jsonl",
        "line 1",
        "conversations[0].role is assistant where user must stand",
        "After an optional system",
    ),
    Case("sharegpt_of_roles.jsonl", "line 1", 'conversations[0] has no "from"', 'Each turn needs "from"'),
    Case(
        "sharegpt_tool.jsonl",
        "line 1",
        'conversations[1] is a turn of a tool: it is from "function_call"',
        "Turns of tools are",
    ),
    Case("sharegpt_unknown.jsonl", "line 1", 'conversations[0].from is "alien"', "Use system, human or"),
    Case("text_is_a_list.jsonl", "line 1", '"text" is a list, not a string', 'Write "text" as text'),
    Case(
        "tool_calls.jsonl",
        "line 1",
        'messages[1] is a turn of a tool: it has "tool_calls"',
        "Turns of tools are",
    ),
    Case(
        "two_kinds.jsonl",
        "line 2",
        "the row is a text, but line 1 is a conversation",
        "Put rows of different",
    ),
    Case("unclosed_brackets.jsonl", "row 1", "nested deeper than 32 levels at column 33", "A row is flat:"),
    Case(
        "a gzip bomb of one line",
        "line 1",
        "the line is longer than 1,048,576 bytes",
        "Shorten the texts of",
        make=gzip_bomb,
    ),
    Case(
        "a gzip bomb of rows",
        "line 42",
        "the file is larger than 4,194,304 bytes",
        "Split it into several",
        make=many_rows_bomb,
    ),
    Case(
        "gzip cut off",
        "line 2",
        "the gzip archive is cut off",
        "Upload the file again,",
        make=lambda: gzip.compress(ROW)[:-4],
    ),
    Case(
        "gzip with a wrong checksum",
        "line 1",
        "the gzip archive is damaged",
        "Pack the file again.",
        make=lambda: overwritten(gzip.compress(ROW), -8, bytes(4)),
    ),
    Case(
        "gzip inside gzip",
        "line 1",
        "a gzip archive inside a gzip archive",
        "Pack the file once.",
        make=lambda: gzip.compress(gzip.compress(ROW)),
    ),
    Case(
        "gzip with a bad row",
        "line 2",
        "not JSON: expecting value at column 1",
        "Each line is one",
        make=lambda: gzip.compress(ROW + b"oops\n"),
    ),
    Case(
        "a Parquet bomb by its dictionary",
        "row 8",
        "the file unpacks to more than 4,194,304 bytes",
        "Split the file, or",
        make=dictionary_bomb,
    ),
    Case(
        "a Parquet bomb by its size",
        "row 1",
        "the file unpacks to 16,777,268 bytes; 4,194,304 are accepted",
        "Split the file, or",
        make=group_bomb,
    ),
    Case(
        "Parquet cut off",
        "row 1",
        "the Parquet file is cut off or damaged: its end is not where it says",
        "Write the file again,",
        make=lambda: SMALL_PARQUET[:-9],
    ),
    Case(
        "Parquet without a middle",
        "row 1",
        "the file cannot be read as Parquet within bounds of memory and time",
        "It may be damaged;",
        make=lambda: overwritten(SMALL_PARQUET, 8, b"\xff" * 24),
    ),
    Case(
        "Parquet with a footer of zeros",
        "row 1",
        "the file cannot be read as Parquet within bounds of memory and time",
        "It may be damaged;",
        make=lambda: overwritten(SMALL_PARQUET, len(SMALL_PARQUET) - 60, bytes(40)),
    ),
    Case(
        "Parquet with numbers",
        "row 1",
        '"completion" is a number, not a string',
        'Write "completion" as text',
        make=lambda: parquet({"prompt": ["a", "b"], "completion": [1, 2]}),
    ),
    Case(
        "Parquet with a null",
        "row 2",
        '"prompt" is missing',
        "A row needs both",
        make=lambda: parquet({"prompt": ["a", None], "completion": ["b", "c"]}),
    ),
    Case(
        "Parquet of 65 columns",
        "row 1",
        "the file has more than 64 columns",
        "Split the file, or",
        make=lambda: parquet({f"column {n}": ["a"] for n in range(65)}),
    ),
    Case(
        "Parquet without the mapped column",
        "row 1",
        'the file has no column "answer" (found: "prompt", "completion")',
        "Split the file, or",
        make=lambda: SMALL_PARQUET,
        wish=MAPPED,
    ),
    Case(
        "rows without the mapped column",
        "line 1",
        'the row has no "answer", which the mapping names (found: "prompt", "completion")',
        "Name columns that the",
        make=lambda: ROW,
        wish=MAPPED,
    ),
    Case(
        "a row longer than the context",
        "line 2",
        "the row has 1,029 tokens, more than the context of 512 that is served",
        "Shorten it, or split",
        make=lambda: ROW + lines("word " * 200),
    ),
    Case(
        "a line above a MiB",
        "line 2",
        "the line is longer than 1,048,576 bytes",
        "Shorten the texts of",
        make=lambda: ROW + lines("x" * (1 << 20)) + ROW,
    ),
    Case(
        "a list with a row above a MiB",
        "row 2",
        "the row is longer than 1,048,576 bytes",
        "Shorten the texts of",
        make=lambda: b"[" + ROW + b"," + lines("x" * (1 << 20)) + b"]",
    ),
    Case(
        "a table with a row above a MiB",
        "line 2",
        "the row is longer than 1,048,576 bytes",
        "Shorten its texts, or",
        make=lambda: b'prompt,completion\n"' + (b"x" * 999 + b"\n") * 1200,
    ),
    Case(
        "nested 100,000 deep",
        "line 1",
        "nested deeper than 32 levels at column 45",
        "A row is flat:",
        make=lambda: b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ),
    Case(
        "513 messages",
        "line 1",
        "more than 512 messages (or other objects) in one row",
        "Split the conversation into",
        make=lambda: json.dumps({"messages": [{"role": "user", "content": "a"}] * 513}).encode(),
    ),
    Case(
        "a table of 65 columns",
        "line 1",
        "more than 64 columns",
        "Keep those of texts.",
        make=lambda: ",".join(f"c{n}" for n in range(65)).encode() + b"\n",
    ),
    Case(
        "labels that differ in case",
        "line 2",
        'the label "billing" is written "Billing" in line 1',
        "Write each label the",
        make=lambda: lines("Billing", "billing"),
        wish=LABELS,
    ),
    Case(
        "labels that differ in spaces",
        "line 2",
        'the label "log  in" is written "log in" in line 1',
        "Write each label the",
        make=lambda: lines("log in", "log  in"),
        wish=LABELS,
    ),
    Case(
        "an answer that is no label",
        "line 2",
        "the answer is no label: it has 18 characters or several lines",
        "A label is one",
        make=lambda: lines("Billing", "One line.\nAnother."),
        wish=LABELS,
    ),
    Case(
        "1,001 labels",
        "line 1001",
        "the file has more than 1,000 labels",
        "Such answers are no",
        make=lambda: lines(*map(str, range(1001))),
        wish=LABELS,
    ),
    Case(
        "plain text where no text was asked for",
        "line 1",
        "not JSON: expecting value at column 1",
        "Each line is one",
        make=lambda: b"Call me Ishmael. Some years ago.\n",
    ),
    Case(
        "plain text in Latin-1",
        "line 1",
        "not UTF-8 at byte 4 of the line (0xe9)",
        "Save the file as",
        make=lambda: b"Caf\xe9\n",
        wish=Wish(reading=Reading(format=Format.TEXT)),
    ),
    Case(
        "prompts where chats are asked for",
        "line 1",
        'the row has no "messages" (found: "prompt", "completion")',
        "Rows of the format",
        make=lambda: ROW,
        wish=Wish(reading=Reading(format=Format.CHAT)),
    ),
    Case(
        "random bytes",
        "line 1",
        "not UTF-8 at byte 1 of the line (0x80)",
        "Save the file as",
        make=lambda: bytes(range(128, 256)) * 8,
    ),
]
