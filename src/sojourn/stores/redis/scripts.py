"""Scripts: what the server does in one step, because two steps could be torn apart.

What lives here: the Lua text, with the positions of what it reads, and the constants both sides
share. What must not: sending (``courier.py``). Each script works on the keys it is given, all of
one slot, and keeps nothing; ``WRITE`` answers for each thing it was asked to do, an error of its
own included, so that one damaged key harms no other call of the batch (law S13).

A stored value is a byte 0xA0 + n, the n list digests (16 bytes each, at most two) under which the
session is listed, then the record, whose positions are those of ``core/record.py``, from 0:
version 2, seen 10, created 18, absolute deadline 34, idle timeout 42; what ``values.py`` leaves out
of it comes later. Numbers are big-endian, so
strings of one length compare like numbers.
"""

from __future__ import annotations

import hashlib
from typing import Final

#: The first byte of a stored value of a session that is in no list; one more for each list.
UNLISTED: Final = 0xA0

#: Bytes that name a list.
DIGEST: Final = 16

#: Lists that one session may be in: its user's, and its identity provider's session's.
MOST_LISTS: Final = 2

#: Milliseconds that the server keeps a record beyond its end: expiry is decided by the core, which
#: wants to meet the expired record and say so; this is garbage collection.
MARGIN: Final = 60_000


class Script:
    """A Lua text and what the server calls it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - the server's name for it


#: KEYS: the mark of void_all, then one key for each thing to do. ARGV: for each a verb and what it
#: needs: c(reate) value px · s(ave) expected-version record px · b(ind) expected-version value px ·
#: t(ouch) seen · d(elete).
#: Answers: the mark, then for each: create 1, or the head of what is there · save 1 · bind the head
#: of what was there, in a list · save and bind 0 where nothing is, or what is stored instead ·
#: touch 1 or 0 · delete the head of what was there, or 0. A head is the value up to created-at.
WRITE: Final = Script(f"""\
local answers = {{redis.call('GET', KEYS[1])}}
local at = 1
local function look(key)
  local start = redis.pcall('GETRANGE', key, 0, {DIGEST * MOST_LISTS + 50})
  if type(start) ~= 'string' then return nil, start end
  local lists = (string.byte(start) or 0) - {UNLISTED}
  if lists < 0 or lists > {MOST_LISTS} then return start, nil end
  local base = 1 + {DIGEST} * lists
  if #start < base + 50 then return start, nil end
  return start, base
end
local function create(key, value, px)
  local done = redis.pcall('SET', key, value, 'NX', 'PX', px)
  if not done then
    local start, base = look(key)
    if not start then return base end
    return string.sub(start, 1, (base or 0) + 26)
  end
  return done.ok and 1 or done
end
local function save(key, version, value, px, binds)
  local start, base = look(key)
  if not start then return base end
  if start == '' and redis.call('EXISTS', key) == 0 then return 0 end
  if not base or string.sub(start, base + 3, base + 10) ~= version then
    return redis.call('GET', key)
  end
  local prefix = string.sub(start, 1, base)
  if binds then
    local own = 1 + {DIGEST} * (string.byte(value) - {UNLISTED})
    prefix, value = string.sub(value, 1, own), string.sub(value, own + 1)
  end
  local seen = string.sub(start, base + 11, base + 18)
  if seen > string.sub(value, 11, 18) then
    value = string.sub(value, 1, 10) .. seen .. string.sub(value, 19)
  end
  local done = redis.pcall('SET', key, prefix .. value, 'PX', px)
  if not done.ok then return done end
  return binds and {{string.sub(start, 1, base + 26)}} or 1
end
local function touch(key, seen)
  local start, base = look(key)
  if not start then return base end
  if not base then return 0 end
  if seen > string.sub(start, base + 11, base + 18) then
    local done = redis.pcall('SETRANGE', key, base + 10, seen)
    if type(done) ~= 'number' then return done end
    local left = struct.unpack('>I8', string.sub(start, base + 35, base + 42))
      - struct.unpack('>I8', seen)
    local idle = struct.unpack('>I8', string.sub(start, base + 43, base + 50))
    local px = math.max(math.min(left, idle), 0) + {MARGIN}
    redis.call('PEXPIRE', key, string.format('%.0f', px))
  end
  return 1
end
local function delete(key)
  local start, base = look(key)
  if not start then return base end
  local done = redis.pcall('DEL', key)
  if done == 0 then return 0 end
  return done == 1 and string.sub(start, 1, (base or 0) + 26) or done
end
for i = 2, #KEYS do
  local verb, key = ARGV[at], KEYS[i]
  if verb == 's' or verb == 'b' then
    answers[i] = save(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], verb == 'b')
    at = at + 4
  elseif verb == 't' then
    answers[i] = touch(key, ARGV[at + 1])
    at = at + 2
  elseif verb == 'c' then
    answers[i] = create(key, ARGV[at + 1], ARGV[at + 2])
    at = at + 3
  else
    answers[i] = delete(key)
    at = at + 1
  end
end
return answers
""")

#: KEYS: a list, its mark, its lock. ARGV: token, milliseconds of the lease, authenticated-at (8
#: bytes), ID, milliseconds for which the list is needed, how long it may be before only some of it
#: is shown (0 for all of it always). Answers: 'busy'; 'void' if the mark is later; else, the lock
#: taken and the ID in the list, 1 or 0 for whether it is new there, and members to look after.
LOCK: Final = Script("""\
if redis.call('EXISTS', KEYS[3]) == 1 then return {'busy'} end
local mark = redis.call('GET', KEYS[2])
if mark and mark > ARGV[3] then return {'void'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
local time = redis.call('TIME')
local new = redis.call('ZADD', KEYS[1], time[1] .. string.format('%06d', time[2]), ARGV[4])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then redis.call('PEXPIRE', KEYS[1], ARGV[5]) end
local answers, members = {new}, {}
local short = tonumber(ARGV[6])
if short == 0 then
  members = redis.call('ZRANGE', KEYS[1], 0, -1)
elseif redis.call('ZCARD', KEYS[1]) > short then
  members = redis.call('ZRANDMEMBER', KEYS[1], short)
end
for _, member in ipairs(members) do
  if member ~= ARGV[4] then answers[#answers + 1] = member end
end
return answers
""")

#: KEYS: a list, its lock. ARGV: token, then IDs that leave the list. Answers whether the lock was
#: still held.
UNLOCK: Final = Script("""\
for i = 2, #ARGV do redis.call('ZREM', KEYS[1], ARGV[i]) end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[2])
""")

#: KEYS: a list. ARGV: microseconds, then IDs. Removes those that were put into the list longer ago:
#: what came later may be about to get its record, or has got it.
FORGET: Final = Script("""\
local time = redis.call('TIME')
local before = time[1] * 1000000 + time[2] - ARGV[1]
for i = 2, #ARGV do
  local at = redis.call('ZSCORE', KEYS[1], ARGV[i])
  if at and tonumber(at) <= before then redis.call('ZREM', KEYS[1], ARGV[i]) end
end
return 1
""")

#: KEYS: the mark of a list, its lock. ARGV: the instant (8 bytes), milliseconds until the mark may
#: be forgotten. Moves the mark forward, and answers the token of who holds the lock.
VOID: Final = Script("""\
local mark = redis.call('GET', KEYS[1])
if not mark or mark < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return redis.call('GET', KEYS[2])
""")

#: KEYS: the mark of void_all. ARGV: the instant (8 bytes). Moves the mark forward.
VOID_ALL: Final = Script("""\
local mark = redis.call('GET', KEYS[1])
if not mark or mark < ARGV[1] then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
""")
