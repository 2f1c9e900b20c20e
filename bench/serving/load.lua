-- SPDX-License-Identifier: Apache-2.0
-- wrk script: posts the bodies of a file in turn, one request in flight per connection, and prints
-- one line of JSON at the end.   wrk … -s load.lua URL -- BODIES [PAUSE_MS]
-- With a pause each connection waits up to twice as long between requests, PAUSE_MS on average; wrk
-- counts whole milliseconds, so that the fraction goes by chance.
local requests, at, pause = {}, 0, 0

function init(args)
   pause = tonumber(args[2] or 0)
   if pause > 0 then
      delay = function() return math.floor(2 * pause * math.random() + math.random()) end
   end
   local headers = { ["Content-Type"] = "application/json" }
   for body in io.lines(args[1]) do
      requests[#requests + 1] = wrk.format("POST", nil, headers, body)
   end
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local e = summary.errors
   io.write(string.format(
      '{"requests":%d,"seconds":%.6f,"p50_us":%d,"p99_us":%d,"max_us":%d,"errors":%d}\n',
      summary.requests, summary.duration / 1e6, latency:percentile(50), latency:percentile(99),
      latency.max, e.connect + e.read + e.write + e.status + e.timeout))
end
