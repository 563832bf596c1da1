-- Removes the oldest entries of a stream whose lifetime ends at an instant or earlier, at most as many as
-- given. Ends at the first that is kept. Returns how many were removed.
local function trim_history(stream, now, most)
  local ended = {}
  for _, row in ipairs(redis.call('XRANGE', stream, '-', '+', 'COUNT', most)) do
    local fields, expires_at = row[2], nil
    for n = 1, #fields, 2 do
      if fields[n] == 'x' then expires_at = tonumber(fields[n + 1]) end
    end
    if expires_at and expires_at > now then break end
    ended[#ended + 1] = row[1]
  end
  if #ended > 0 then redis.call('XDEL', stream, unpack(ended)) end
  return #ended
end
