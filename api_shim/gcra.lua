-- Takes from several limits at once, or from none. Each limit is a GCRA: one number, the time at which it would be empty.
-- KEYS: one per limit. ARGV: for each limit its count, its period in seconds and the cost.
-- Returns the index of the limit that refuses (0: none), then for each limit what remains, the seconds until it is full
-- again, and the seconds until the cost would fit.
local time = redis.call('time')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local refused, answer, writes = 0, {}, {}
for i, key in ipairs(KEYS) do
  local count, period, cost = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local each = period / count
  local full_at = math.max(tonumber(redis.call('get', key)) or 0, now)
  local after = full_at + each * cost
  local wait = after - now - period
  if wait > 1e-9 and refused == 0 then refused = i end
  writes[i] = {key, after, math.ceil(after - now)}
  local level = (refused == i or cost == 0) and full_at or after
  answer[#answer + 1] = math.max(0, math.floor((period - (level - now)) / each + 1e-6))
  answer[#answer + 1] = tostring(level - now)
  answer[#answer + 1] = tostring(math.max(0, wait))
end
if refused == 0 then
  for _, write in ipairs(writes) do
    if write[3] > 0 then redis.call('set', write[1], string.format('%.6f', write[2]), 'ex', write[3] + 1) end
  end
end
table.insert(answer, 1, refused)
return answer
