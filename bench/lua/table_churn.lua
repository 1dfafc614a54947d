-- table_churn.lua: makes, resizes and drops tables of many shapes.
--
-- Stands for game and simulation code: records with a few fields, arrays
-- that grow by appending, sets that fill and empty, matrices of small rows,
-- a queue of events. A unit returns a sum over what it computed.

local EVENTS = 30000
local WORLD = 2000

-- Things that live for a while: each slot is replaced now and then.
local world = {}

local function thing(i)
    return {
        id = i,
        at = { x = i % 50, y = i % 31 },
        speed = { x = i % 3 - 1, y = i % 5 - 2 },
        tags = {},
    }
end

local function step(one, i)
    local at, speed = one.at, one.speed
    one.at = { x = (at.x + speed.x) % 50, y = (at.y + speed.y) % 31 }
    local tags = one.tags
    if #tags >= 12 then
        one.tags = {}
    else
        tags[#tags + 1] = i
    end
    return one.at.x * 31 + one.at.y
end

local function simulate()
    local sum, pick = 0, 12345
    for i = 1, WORLD do
        world[i] = thing(i)
    end
    for i = 1, EVENTS do
        pick = (pick * 1103515245 + 12345) % 2147483648
        local slot = pick // 65536 % WORLD + 1
        sum = sum + step(world[slot], i)
        if i % 5 == 0 then
            world[slot] = thing(slot + i)
        end
    end
    return sum
end

-- An event queue: a list with a moving head, as wide as 300.
local function queue()
    local list, head, tail, sum = {}, 1, 0, 0
    for i = 1, EVENTS do
        tail = tail + 1
        list[tail] = { due = i, kind = i % 7, i }
        if tail - head >= 300 then
            local event = list[head]
            list[head] = nil
            head = head + 1
            sum = sum + event.due * event.kind % 1009
        end
    end
    return sum
end

local function sets()
    local sum = 0
    for round = 1, 60 do
        local set = {}
        for i = 1, round * 5 do
            set[i * 64 + round] = true
        end
        for key in pairs(set) do
            sum = sum + key
        end
    end
    return sum
end

local function matrix(n)
    local rows = {}
    for i = 1, n do
        local line = {}
        for j = 1, n do
            line[j] = i * j % 11
        end
        rows[i] = line
    end
    return rows
end

local function product(a, b, n)
    local out = {}
    for i = 1, n do
        local line = {}
        for j = 1, n do
            local sum = 0
            for k = 1, n do
                sum = sum + a[i][k] * b[k][j]
            end
            line[j] = sum
        end
        out[i] = line
    end
    return out
end

local function matrices()
    local m = matrix(12)
    for _ = 1, 20 do
        m = product(m, matrix(12), 12)
        for i = 1, 12 do
            for j = 1, 12 do
                m[i][j] = m[i][j] % 1009
            end
        end
    end
    return m[3][4] + m[12][11]
end

return function()
    return simulate() * 7 + queue() * 5 + sets() * 3 + matrices()
end
