-- SPDX-License-Identifier: Apache-2.0
-- wrk script: posts the requests of a file in turn, one in flight per connection, and prints one line
-- of JSON at the end.   wrk … -s load.lua URL -- REQUESTS NAME=VALUE…
-- REQUESTS has each request after its length (four bytes, little-endian); NAME=VALUE are header lines.
local requests, at = {}, 0

function init(args)
   local headers = {}
   for i = 2, #args do
      local name, value = args[i]:match("^(.-)=(.*)$")
      headers[name] = value
   end
   local file = assert(io.open(args[1], "rb"))
   for length in function() return file:read(4) end do
      local a, b, c, d = length:byte(1, 4)
      local body = file:read(a + 256 * (b + 256 * (c + 256 * d)))
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
