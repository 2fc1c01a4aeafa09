-- Gives back what was taken and not used. ARGV for each key: interval, how many.
-- Without a clock: what is full again by itself has lapsed, and is not there.
for i = 1, #KEYS do
  local full_at = tonumber(redis.call('GET', KEYS[i]) or '')
  local left = redis.call('PTTL', KEYS[i])
  local back = tonumber(ARGV[2 * i - 1]) * tonumber(ARGV[2 * i])
  if full_at and left * 1000 <= back then
    redis.call('DEL', KEYS[i])
  elseif full_at then
    redis.call('SET', KEYS[i], string.format('%.0f', full_at - back),
      'PX', left - math.floor(back / 1000))
  end
end
return 1
