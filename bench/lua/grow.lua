-- grow.lua: an in-memory database that fills to about 150 MB and is dropped.
--
-- Stands for services that load their data at the start: many small records
-- in nested tables. Records lie in buckets of at most a few dozen, so that
-- no single array is large. A unit loads everything, runs queries over it,
-- updates a part, drops it all, and returns a sum over what it read.

local RECORDS = 240000
local PER_BUCKET = 40
local CITIES = 500

local function new_store()
    return { people = {}, by_city = {}, size = 0 }
end

-- The bucket with that number; directories hold 256 buckets each.
local function bucket_of(directory, number)
    local high, low = number // 256 + 1, number % 256 + 1
    local page = directory[high]
    if not page then
        page = {}
        directory[high] = page
    end
    local bucket = page[low]
    if not bucket then
        bucket = {}
        page[low] = bucket
    end
    return bucket
end

local function address(i)
    return {
        street = i % 977 .. " Long Street",
        city = i * 7919 % CITIES,
        zip = 10000 + i % 5000,
    }
end

local function record(i)
    local one = {
        id = i,
        name = "Person Number " .. i,
        mail = "p" .. i .. "@example.org",
        balance = i % 1000 + 0.5,
        address = address(i),
    }
    if i % 3 == 0 then
        one.tags = { "t" .. i % 50, i % 9, i % 4 == 0 }
    end
    return one
end

local function insert(store, one)
    local id = one.id
    local bucket = bucket_of(store.people, id // PER_BUCKET)
    bucket[id % PER_BUCKET + 1] = one
    local block = one.address.city * 256 + id // 1024 % 256
    local index = bucket_of(store.by_city, block)
    index[#index + 1] = id
    store.size = store.size + 1
end

local function find(store, id)
    return bucket_of(store.people, id // PER_BUCKET)[id % PER_BUCKET + 1]
end

local function city_total(store, city)
    local total = 0
    for block = city * 256, city * 256 + 255 do
        for _, id in ipairs(bucket_of(store.by_city, block)) do
            total = total + find(store, id).balance
        end
    end
    return total
end

local function update(store, id)
    local one = find(store, id)
    one.name = "Renamed " .. id
    one.address = address(id + 1)
    return #one.name + one.address.zip
end

local function load_all(store)
    for i = 0, RECORDS - 1 do
        insert(store, record(i))
    end
end

return function()
    local store = new_store()
    load_all(store)
    local sum = 0
    for city = 0, CITIES - 1, 25 do
        sum = sum + city_total(store, city)
    end
    for id = 0, RECORDS - 1, 20 do
        sum = sum + update(store, id)
    end
    sum = sum + store.size
    store = nil
    collectgarbage()
    return string.format("%.0f", sum)
end
