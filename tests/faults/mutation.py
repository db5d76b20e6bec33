"""Damage to files, the same for the same seed."""

import io
import json
import random
import re
import struct
import zipfile
import zlib

_NEAR_AN_END = 512  # bytes; headers and indices lie there
_NUMBERS = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63)
_WORDS = ("0", "-1", "1", "1e9", "2147483648", "9" * 30, "nan", "inf", "None", "True", "''", "'é'", "[]", "{}", "")


def mutants(paths, count, seed, mutate=None):
    """`count` files with damage: [(path, damaged content)].

    Args:
      paths: of whole files, taken in turn.
      count: how many.
      seed: text; equal seeds and files give equal damage.
      mutate: (bytes, `random.Random`) -> bytes; None is `damage`.
    """
    made = []
    for number in range(count):
        path, draw = paths[number % len(paths)], random.Random(f"{seed}/{number}")
        content = damaged = path.read_bytes()
        while damaged == content:
            damaged = (mutate or damage)(content, draw)
        made.append((path, damaged))
    return made


def damage(content, draw):
    """One to three changes: bits, bytes and numbers overwritten, stretches lost, doubled, zeroed or put elsewhere."""
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_CHANGES)(content, draw)
    return content


def damage_text(content, draw):
    """One to three changes to a text: numbers and words replaced, lines lost, doubled and swapped, or `damage`."""
    if draw.random() < 0.2:
        return damage(content, draw)
    for _ in range(draw.choice((1, 1, 2, 3))):
        content = draw.choice(_TEXT_CHANGES)(content, draw)
    return content


def damage_png(content, draw):
    """Damage within a PNG file's chunks, whose checksums are then right again, so that decoders see it."""
    chunks, start = [], 8
    while start < len(content):
        (length,) = struct.unpack_from(">I", content, start)
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + length]))
        start += length + 12
    place = draw.randrange(len(chunks))
    kind, data = chunks[place]
    chunks[place] = kind, damage(data, draw) if data else draw.randbytes(4)
    if draw.random() < 0.2:
        draw.shuffle(chunks)
    return content[:8] + b"".join(png_chunk(kind, data) for kind, data in chunks)


def png_chunk(kind, data):
    """A chunk of a PNG file: length, kind, data, checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def damage_safetensors_header(content, draw):
    """Damage to the JSON header of a safetensors file, whose length is then right again."""
    (length,) = struct.unpack_from("<Q", content)
    header = damage_text(content[8 : 8 + length], draw)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def damage_pickle(content, draw):
    """Damage to one member of a .pth file's ZIP archive, whose checksums are then right again."""
    source, result = zipfile.ZipFile(io.BytesIO(content)), io.BytesIO()
    names = source.namelist()
    chosen = draw.choice([name for name in names if name.endswith("data.pkl")] * 3 + names)
    with zipfile.ZipFile(result, "w") as target:
        for name in names:
            member = source.read(name)
            target.writestr(zipfile.ZipInfo(name), damage(member, draw) if name == chosen and member else member)
    return result.getvalue()


def damage_record(content, draw):
    """Another value, type or name somewhere in a JSON document, or `damage`, as to anything else."""
    try:
        document = json.loads(content)
    except ValueError:
        return damage(content, draw)
    if not document or draw.random() < 0.4:
        return damage_text(content, draw)
    parents = [document]
    for parent in parents:
        parents += [value for value in (parent.values() if isinstance(parent, dict) else parent) if _nested(value)]
    parent = draw.choice([parent for parent in parents if parent])
    key = draw.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    value = draw.choice((None, True, -1, 0, 2**70, 1e400, "", "é\n", [], {}, [parent[key]], {"": parent[key]}))
    parent[key] = value
    return json.dumps(draw.choice((document, document, document, value))).encode()


def _nested(value):
    return isinstance(value, (dict, list))


def _place(content, draw):
    span = min(len(content), draw.choice((_NEAR_AN_END, len(content))))
    start = draw.randrange(span + 1)
    return start if draw.random() < 0.7 else len(content) - start


def _stretch(content, draw):
    start = _place(content, draw)
    return start, min(len(content), start + draw.choice((1, 4, 16, 64, 1 + len(content) // 4)))


def _flip(content, draw):
    changed = bytearray(content)
    for _ in range(draw.choice((1, 2, 8))):
        if changed:
            changed[_place(content, draw) % len(changed)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _put_number(content, draw):
    size, order = draw.choice((1, 2, 4, 8)), draw.choice(("big", "little"))
    start = _place(content, draw)
    number = (draw.choice(_NUMBERS) % (1 << 8 * size)).to_bytes(size, order)
    return content[:start] + number + content[start + size :]


def _put_noise(content, draw):
    start, end = _stretch(content, draw)
    return content[:start] + draw.randbytes(end - start) + content[end:]


def _put_zeros(content, draw):
    start, end = _stretch(content, draw)
    return content[:start] + bytes(end - start) + content[end:]


def _cut_off(content, draw):
    return content[: draw.randrange(len(content) + 1)]


def _cut_out(content, draw):
    start, end = _stretch(content, draw)
    return content[:start] + content[end:]


def _double(content, draw):
    start, end = _stretch(content, draw)
    return content[:end] + content[start:]


def _move(content, draw):
    start, end = _stretch(content, draw)
    piece, rest = content[start:end], content[:start] + content[end:]
    place = _place(rest, draw)
    return rest[:place] + piece + rest[place:]


_CHANGES = (_flip, _flip, _put_number, _put_number, _put_noise, _put_zeros, _cut_off, _cut_out, _double, _move)


def _replace_word(content, draw):
    found = list(re.finditer(rb"[\w.'-]+", content))
    if not found:
        return content
    word = draw.choice(found)
    other = draw.choice((draw.choice(_WORDS).encode(), draw.choice(found)[0]))
    return content[: word.start()] + other + content[word.end() :]


def _replace_number(content, draw):
    found = list(re.finditer(rb"(?<![\w.])-?\d[\d.e-]*", content))
    if not found:
        return content
    number = draw.choice(found)
    return content[: number.start()] + draw.choice(_WORDS).encode() + content[number.end() :]


def _change_lines(content, draw):
    lines = content.splitlines(keepends=True)
    if not lines:
        return content
    place = draw.randrange(len(lines))
    line = lines.pop(place)
    for _ in range(draw.choice((0, 0, 1, 2))):
        lines.insert(draw.randrange(len(lines) + 1), line)
    return b"".join(lines)


_TEXT_CHANGES = (_replace_word, _replace_number, _replace_number, _change_lines)
