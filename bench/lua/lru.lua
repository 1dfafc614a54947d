-- lru.lua: a cache that drops what was used longest ago.
--
-- Stands for long-lived state in steady change: a table of string keys, a
-- doubly linked list of entries, values of mixed sizes; every miss makes an
-- entry and drops the oldest. The cache lives on between units, and so does
-- the stream of requests. A unit returns hits, misses and a sum of values.

local CAPACITY = 6000
local REQUESTS = 12000

local Cache = {}
Cache.__index = Cache

local function new_cache(capacity)
    local ends = {}
    ends.newer, ends.older = ends, ends
    return setmetatable({ capacity = capacity, size = 0, entries = {},
                          ends = ends }, Cache)
end

local function unlink(entry)
    entry.older.newer = entry.newer
    entry.newer.older = entry.older
end

function Cache:push(entry)
    local ends = self.ends
    entry.older, entry.newer = ends.older, ends
    ends.older.newer = entry
    ends.older = entry
end

function Cache:get(key)
    local entry = self.entries[key]
    if entry then
        unlink(entry)
        self:push(entry)
        return entry.value
    end
end

function Cache:put(key, value)
    if self.size == self.capacity then
        local oldest = self.ends.newer
        unlink(oldest)
        self.entries[oldest.key] = nil
    else
        self.size = self.size + 1
    end
    local entry = { key = key, value = value }
    self.entries[key] = entry
    self:push(entry)
end

-- What the cache saves the program from computing: a record.
local function load_record(key, number)
    local record = { name = "user " .. number, visits = number % 100 }
    if number % 4 == 0 then
        record.groups = { number % 5, number % 7, number % 11 }
    end
    if number % 3 == 0 then
        record.page = key .. ("#"):rep(number % 60)
    end
    return record
end

local cache = new_cache(CAPACITY)
local stream = 99

-- Half of the requests go to an eighth of the keys.
local function next_number()
    stream = (stream * 1103515245 + 12345) % 2147483648
    local pick = stream // 32768
    if pick % 2 == 0 then
        return pick // 2 % 4000
    end
    return pick // 2 % 32000
end

return function()
    local hits, misses, sum = 0, 0, 0
    for _ = 1, REQUESTS do
        local number = next_number()
        local key = "session:" .. number
        local value = cache:get(key)
        if value then
            hits = hits + 1
        else
            misses = misses + 1
            value = load_record(key, number)
            cache:put(key, value)
        end
        sum = sum + value.visits + #value.name
    end
    return string.format("%d/%d/%d", hits, misses, sum)
end
