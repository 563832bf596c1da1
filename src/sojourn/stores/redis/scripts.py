"""Scripts: what the server does in one step, because two steps could be torn apart.

What lives here: the Lua text, with the positions of what it reads, and the constants both sides
share. What must not: sending (``courier.py``). Each script works on the keys it is given, all of
one slot, and keeps nothing; ``WRITE`` answers for each thing it was asked to do, an error of its
own included, so that one damaged key harms no other call of the batch (law S13).

A stored value is a byte 0xA0 + n, the n list digests (16 bytes each, at most two) under which the
session is listed, then the record, whose positions are those of ``record.py``, from 0:
version 2, seen 10, created 18, authenticated 26, absolute deadline 34, idle timeout 42; what
``values.py`` leaves out of it comes later. Numbers are big-endian.
"""

from __future__ import annotations

import hashlib
from typing import Final

from sojourn.record import FORMAT

#: The first byte of a stored value of a session that is in no list; one more for each list.
UNLISTED: Final = 0xA0

#: Bytes that name a list.
DIGEST: Final = 16

#: Lists that one session may be in: its user's, and its identity provider's session's.
MOST_LISTS: Final = 2

#: Milliseconds that the server keeps a record beyond its end: expiry is decided by the core, which
#: wants to meet the expired record and say so; this is garbage collection.
MARGIN: Final = 60_000


#: What tells a script that its server has sharded channels: it is there since Redis 7.0. The name
#: has no need of a round trip, and is right for each node of a cluster that is being upgraded.
SHARDED: Final = "redis.REDIS_VERSION_NUM"


class Script:
    """A Lua text and what the server calls it."""

    __slots__ = ("sha", "text")

    def __init__(self, text: str) -> None:
        self.text: str = text
        self.sha: str = hashlib.sha1(text.encode()).hexdigest()  # noqa: S324 - the server's name for it


# What several scripts share. Lua compares strings by the server's locale, in which bytes have no
# order, so whatever is compared becomes a number first; those here are exact below 2**53.

_NUMBER: Final = """\
local function number(text) return (struct.unpack('>I8', text)) end
"""

_STORING: Final = f"""\
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
  if number(seen) > number(string.sub(value, 11, 18)) then
    value = string.sub(value, 1, 10) .. seen .. string.sub(value, 19)
  end
  local done = redis.pcall('SET', key, prefix .. value, 'PX', px)
  if not done.ok then return done end
  return binds and {{string.sub(start, 1, base + 26)}} or 1
end
"""

_STEPS: Final = f"""\
{_NUMBER}{_STORING}\
local at = 1
local function touch(key, seen)
  local start, base = look(key)
  if not start then return base end
  if not base then return 0 end
  if number(seen) > number(string.sub(start, base + 11, base + 18)) then
    local done = redis.pcall('SETRANGE', key, base + 10, seen)
    if type(done) ~= 'number' then return done end
    local left = number(string.sub(start, base + 35, base + 42)) - number(seen)
    local idle = number(string.sub(start, base + 43, base + 50))
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
local function tell(key, version, id)
  local clustered = string.sub(key, -30, -30) == '}}'
  local name = string.sub(key, clustered and -34 or -32)
  local channel = string.sub(key, 1, -#name - 3) .. 'c:' .. name
  local message = '\\149\\1\\167changed\\196\\16' .. id .. '\\207' .. version .. '\\160'
  redis.pcall(clustered and {SHARDED} and 'SPUBLISH' or 'PUBLISH', channel, message)
end
for i = first, #KEYS do
  local verb, key = ARGV[at], KEYS[i]
  if verb == 's' then
    answers[i] = save(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], false)
    if answers[i] == 1 then tell(key, string.sub(ARGV[at + 2], 3, 10), ARGV[at + 4]) end
    at = at + 5
  elseif verb == 'b' then
    answers[i] = save(key, ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], true)
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
"""

#: KEYS: the mark of invalidate_all, then one key for each thing to do. ARGV: for each a verb and what it
#: needs: c(reate) value px · s(ave) expected-version record px ID · b(ind) expected-version value
#: px · t(ouch) seen · d(elete). Whoever watches a saved session is told, in a cluster by the slot's
#: own nodes; no save depends on whether that may be told.
#: Answers: the mark, then for each: create 1, or the head of what is there · save 1 · bind the head
#: of what was there, in a list · save and bind 0 where nothing is, or what is stored instead ·
#: touch 1 or 0 · delete the head of what was there, or 0. A head is the value up to created-at.
WRITE: Final = Script("local answers, first = {redis.call('GET', KEYS[1])}, 2\n" + _STEPS)

#: The same for one thing to do, without the mark.
WRITE_ONE: Final = Script("local answers, first = {}, 1\n" + _STEPS)

#: Where a record has what decides who goes when one session too many begins.
SEEN_AT: Final = 10
AUTHENTICATED_AT: Final = 26

#: Entries of a list beyond which each login looks after as many of them, at random.
SHORT: Final = 16

#: A whole login, for a server that has every key. KEYS: the mark of invalidate_all, the record, then a
#: list and its mark for each name. ARGV: ID, expected version (8 bytes, 0 to insert), value, px,
#: milliseconds for which the lists are needed, now, how many sessions the first list may have (0
#: for any number), position of what decides who goes (0: nobody, it refuses), what the keys of
#: records and of lists begin with. Answers: the IDs that had to go, in a list; 0 where nothing is,
#: -1 void, -2 full; or what is stored instead. Whatever can fail comes before the first change.
BIND: Final = Script(f"""\
{_NUMBER}{_STORING}\
local id, version, value, px = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local now, most, order = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local function field(record, base, position)
  return number(string.sub(record, base + position + 1, base + position + 8))
end
local function digest(head, n)
  return string.sub(head, 2 + {DIGEST} * (n - 1), 1 + {DIGEST} * n)
end
local function names(head, base, wanted)
  for n = 1, (base - 1) / {DIGEST} do
    if digest(head, n) == wanted then return true end
  end
  return false
end
local function hex(text)
  return (string.gsub(text, '.', function(c) return string.format('%02x', string.byte(c)) end))
end
local void = redis.call('GET', KEYS[1])
local own = 1 + {DIGEST} * (string.byte(value) - {UNLISTED})
for i = 3, #KEYS, 2 do
  redis.call('ZCARD', KEYS[i])
  local mark = redis.call('GET', KEYS[i + 1])
  if mark and number(mark) > field(value, own, {AUTHENTICATED_AT}) then return -1 end
end
local start, base = look(KEYS[2])
if void and base and start and field(start, base, 18) < number(void) then return 0 end
local living, leaving, dead = {{}}, {{}}, {{}}
for i = 3, #KEYS, 2 do
  local list, whole, members = digest(value, (i - 1) / 2), i == 3 and most > 0, {{}}
  if whole then
    members = redis.call('ZRANGE', KEYS[i], 0, -1)
  elseif redis.call('ZCARD', KEYS[i]) > {SHORT} then
    members = redis.call('ZRANDMEMBER', KEYS[i], {SHORT})
  end
  for _, member in ipairs(members) do
    local key = ARGV[9] .. hex(member)
    local head, at = look(key)
    if member == id or not head then
    elseif not at or not names(head, at, list)
      or void and field(head, at, 18) < number(void) then
      dead[#dead + 1] = {{KEYS[i], member}}
    elseif whole and string.byte(head, at + 1) % 128 == {FORMAT} then
      local one = {{key, member, field(head, at, math.max(order, {SEEN_AT}))}}
      local idle = field(head, at, {SEEN_AT}) + field(head, at, 42)
      if now >= math.min(idle, field(head, at, 34)) then
        leaving[#leaving + 1] = one
      else
        living[#living + 1] = one
      end
    end
  end
end
local many = #living + 1 - most
if most == 0 then many = 0 end
if many > 0 and order == 0 then return -2 end
table.sort(living, function(a, b) return a[3] < b[3] or a[3] == b[3] and a[1] < b[1] end)
local done
if number(version) == 0 then
  done = create(KEYS[2], value, px)
else
  done = save(KEYS[2], version, value, px, true)
end
if type(done) == 'string' then return redis.call('GET', KEYS[2]) end
if done == 0 or type(done) == 'table' and done.err then return done end
local time = redis.call('TIME')
for i = 3, #KEYS, 2 do
  redis.call('ZADD', KEYS[i], time[1] .. string.format('%06d', time[2]), id)
  if redis.call('PTTL', KEYS[i]) < tonumber(ARGV[5]) then
    redis.call('PEXPIRE', KEYS[i], ARGV[5])
  end
end
for _, entry in ipairs(dead) do redis.call('ZREM', entry[1], entry[2]) end
local function unlist(head, member, but)
  for n = 1, string.byte(head) - {UNLISTED} do
    if not but or not names(but, own, digest(head, n)) then
      redis.pcall('ZREM', ARGV[10] .. hex(digest(head, n)), member)
    end
  end
end
if type(done) == 'table' then unlist(done[1], id, value) end
local gone = {{}}
for n = 1, many do
  gone[n], leaving[#leaving + 1] = living[n][2], living[n]
end
for _, one in ipairs(leaving) do
  unlist(look(one[1]), one[2])
  redis.call('DEL', one[1])
end
return gone
""")

_ENTERING: Final = """\
local function enter(list, id, needed, short)
  local time = redis.call('TIME')
  local new = redis.call('ZADD', list, time[1] .. string.format('%06d', time[2]), id)
  if redis.call('PTTL', list) < tonumber(needed) then redis.call('PEXPIRE', list, needed) end
  local answers, members = {new}, {}
  short = tonumber(short)
  if short == 0 then
    members = redis.call('ZRANGE', list, 0, -1)
  elseif redis.call('ZCARD', list) > short then
    members = redis.call('ZRANDMEMBER', list, short)
  end
  for _, member in ipairs(members) do
    if member ~= id then answers[#answers + 1] = member end
  end
  return answers
end
"""

#: A login's first step in a cluster. KEYS: a list, its mark, its lock. ARGV: token, milliseconds of
#: the lease, authenticated-at (8 bytes), ID, milliseconds for which the list is needed, how long it
#: may be before only some of it is shown (0 for all of it always). Answers: 'busy'; 'void' if the
#: mark is later; else, the lock taken and the ID in the list, 1 or 0 for whether it is new there,
#: and members to look after.
LOCK: Final = Script(
    _NUMBER
    + _ENTERING
    + """\
if redis.call('EXISTS', KEYS[3]) == 1 then return {'busy'} end
local mark = redis.call('GET', KEYS[2])
if mark and number(mark) > number(ARGV[3]) then return {'void'} end
redis.call('SET', KEYS[3], ARGV[1], 'PX', ARGV[2])
return enter(KEYS[1], ARGV[4], ARGV[5], ARGV[6])
"""
)

#: The last part of that, for a slot on its way: there a command can have one key. KEYS: a list.
#: ARGV: ID, milliseconds, how long it may be. Answers as LOCK does.
ENTER: Final = Script(_ENTERING + "return enter(KEYS[1], ARGV[1], ARGV[2], ARGV[3])\n")

#: KEYS: a lock. ARGV: token. Answers whether it was still held.
UNLOCK: Final = Script("""\
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
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

#: KEYS: the mark of a list. ARGV: the instant (8 bytes), milliseconds until the mark may be
#: forgotten. Moves the mark forward.
REVOKED: Final = Script(
    _NUMBER
    + """\
local mark = redis.call('GET', KEYS[1])
if not mark or number(mark) < number(ARGV[1]) then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
"""
)

#: KEYS: the mark of invalidate_all. ARGV: the instant (8 bytes). Moves the mark forward.
VOID_ALL: Final = Script(
    _NUMBER
    + """\
local mark = redis.call('GET', KEYS[1])
if not mark or number(mark) < number(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[1]) end
return 1
"""
)

#: For a cluster. KEYS: the channel of a session. ARGV: a message. Tells whoever watches.
TELL: Final = Script(f"""\
return redis.call({SHARDED} and 'SPUBLISH' or 'PUBLISH', KEYS[1], ARGV[1])
""")
