-- plant.lua - programs in Lua, with coroutines, of which it is known what is the
-- matter: as plant.c. Says "up", and goes on until it is killed.
--
--     lua5.4 plant.lua leak|cache|fragment
local hakmem = require "hakmem"
local kind = arg[1]
local sleep = "sleep 0.01"

local function text(least, most)
    return ("x"):rep(math.random(least, most)) .. math.random(1 << 60)
end

local slots = {}
local function replace(count, times)
    for _ = 1, times do
        slots[math.random(count)] = { text(16, 900) }
    end
end

local kept = {}
local function leaks(count)
    for i = 1, count do
        kept[#kept + 1] = { text(500, 600), i }
    end
end

local function grow(count)
    for i = 1, count do
        slots[i] = { text(16, 900) }
    end
end

local function scatter(count)
    for i = 1, count do
        slots[i] = { text(100, 200) }
    end
    for i = 1, count do
        if i % 16 ~= 0 then slots[i] = nil end
    end
    collectgarbage()
    collectgarbage()
end

-- Work comes in coroutines, some of them nested, as a server's does.
local function worker(work)
    return coroutine.wrap(function()
        local inner = coroutine.create(function()
            while true do
                work()
                coroutine.yield()
            end
        end)
        while true do
            assert(coroutine.resume(inner))
            coroutine.yield()
        end
    end)
end

local works = {
    leak = function()
        grow(1000)
        leaks(60000) -- with 32 MB it shows itself at once
        return worker(function() replace(1000, 400) leaks(20) end)
    end,
    cache = function()
        grow(65000)
        return worker(function() replace(65000, 300) end)
    end,
    fragment = function()
        scatter(200000)
        return worker(function() replace(100, 500) end)
    end,
}

-- What is garbage and not yet collected is in use, for doctor and for a profile: here
-- it is a fifth of what is kept, at the most.
collectgarbage("incremental", 120, 400)
local work = works[kind]()
-- A collection each time, so that what is garbage is not taken for what is kept.
for _ = 1, 20 do work() end
collectgarbage()
io.stdout:setvbuf "no"
io.write "up\n"
while true do
    for _ = 1, 5 do work() end
    if kind ~= "fragment" then collectgarbage "step" end
    os.execute(sleep)
end
