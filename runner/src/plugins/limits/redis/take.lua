-- gcra::decide over all KEYS at once, in the same whole microseconds.
-- ARGV: now (0: this server's clock), then for each key: interval, burst, least, most.
-- Takes `least` from every bucket or nothing from any; where all hold that, up to `most`.
-- Gives now, the wait (0: taken), then for each key: when it is full, how many were taken.
local now = tonumber(ARGV[1])
if now == 0 then
  local time = redis.call('TIME')
  now = tonumber(time[1]) * 1000000 + tonumber(time[2])
end
local kept = redis.call('MGET', unpack(KEYS))
local ahead, wait = {}, 0
for i = 1, #KEYS do
  local interval, burst = tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local capacity = interval * burst
  ahead[i] = math.min(math.max((tonumber(kept[i]) or 0) - now, 0), capacity)
  local least = math.min(tonumber(ARGV[4 * i]), burst)
  wait = math.max(wait, ahead[i] + least * interval - capacity)
end
local answer = {now, wait}
for i = 1, #KEYS do
  local taken = 0
  if wait == 0 then
    local interval, burst = tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
    local least, most = math.min(tonumber(ARGV[4 * i]), burst), tonumber(ARGV[4 * i + 1])
    taken = math.max(least, math.min(most, math.floor((interval * burst - ahead[i]) / interval)))
    ahead[i] = ahead[i] + taken * interval
    if taken > 0 then
      redis.call('SET', KEYS[i], string.format('%.0f', now + ahead[i]),
        'PX', math.floor(ahead[i] / 1000) + 1)
    end
  end
  answer[2 * i + 1] = now + ahead[i]
  answer[2 * i + 2] = taken
end
return answer
