-- Takes mails from several limits at once, as many as all of them leave; or gives some back. Each limit counts what was
-- taken in the slices of its period, so that no stretch of time as long as the period ever holds more than its count.
-- KEYS: a hash per limit, number of a slice -> mails. ARGV: how many are asked for (below 0: given back), then for each
-- limit its count, its period in seconds and how many of them are reserved for others.
-- Returns how many were granted, the seconds until one would be (0 if one was), then for each limit what remains of it
-- and the seconds until nothing is counted any more.
local SLICES = 20
local time = redis.call('time')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6
local asked = tonumber(ARGV[1])
local granted, wait, limits = asked, 0, {}
for i, key in ipairs(KEYS) do
  local count, period, reserved = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i]), tonumber(ARGV[3 * i + 1])
  local length = period / SLICES
  local current = math.floor(now / length)
  local used, slices, fields = 0, {}, redis.call('hgetall', key)
  for j = 1, #fields, 2 do
    local number, mails = tonumber(fields[j]), tonumber(fields[j + 1])
    if number < current - SLICES then
      redis.call('hdel', key, fields[j])
    else
      used = used + mails
      slices[#slices + 1] = {number, mails}
    end
  end
  table.sort(slices, function(a, b) return a[1] < b[1] end)
  local free = count - reserved - used
  for _, slice in ipairs(slices) do
    if free >= 1 then break end
    free = free + slice[2]
    wait = math.max(wait, (slice[1] + SLICES + 1) * length - now)
  end
  if asked > 0 then granted = math.min(granted, count - reserved - used) else granted = math.max(granted, -used) end
  local last = slices[#slices]
  limits[i] = {key, current, count - used, last and (last[1] + SLICES + 1) * length - now or 0, period + length}
end
if asked > 0 then granted = math.max(granted, 0) end
local answer = {granted, tostring(wait)}
for _, limit in ipairs(limits) do
  if granted ~= 0 then
    redis.call('hincrby', limit[1], limit[2], granted)
    redis.call('pexpire', limit[1], math.ceil(limit[5] * 1000))
  end
  answer[#answer + 1] = math.max(0, limit[3] - granted)
  answer[#answer + 1] = tostring(limit[4])
end
return answer
