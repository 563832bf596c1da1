-- Examines the entries of a stream from an ID, at most as many as given, and removes those whose lifetime
-- ends at an instant or earlier. Returns the ID of the last one; empty if no entry follows.
local function trim_history(stream, start, now, most)
  local rows = redis.call('XRANGE', stream, start, '+', 'COUNT', most)
  local ended = {}
  for _, row in ipairs(rows) do
    local fields, expires_at = row[2], nil
    for n = 1, #fields, 2 do
      if fields[n] == 'x' then expires_at = tonumber(fields[n + 1]) end
    end
    if not expires_at or expires_at <= now then ended[#ended + 1] = row[1] end
  end
  if #ended > 0 then redis.call('XDEL', stream, unpack(ended)) end
  return #rows == most and rows[#rows][1] or ''
end
