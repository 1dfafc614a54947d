-- gc.lua - the collector under stress: steps, both modes, odd parameters,
-- weak tables, finalizers that allocate, also while the state is closed.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

-- A tree that is built, checked and dropped; returns its number of leaves.
local function tree(depth)
    if depth == 0 then return {leaf = depth} end
    return {tree(depth - 1), tree(depth - 1), name = "node" .. depth}
end

local function leaves(node)
    if node.leaf then return 1 end
    return leaves(node[1]) + leaves(node[2])
end

local function churn(rounds)
    local kept = {}
    for i = 1, rounds do
        local t = tree(i % 7)
        assert(leaves(t) == 1 << (i % 7))
        kept[i % 13 + 1] = t
        kept[i % 5 + 20] = ("s"):rep(i % 1500)
        kept[i % 3 + 40] = function() return t, i end
    end
    local t, i = kept[40]()
    assert(leaves(t) == 1 << (i % 7))
    add(i)
    for k = 20, 24 do add(kept[k] and #kept[k] or 0) end
end

-- Steps of every size, while data is changing.
for _, size in ipairs {0, 1, 2, 10, 100, 1000} do
    for i = 1, times(40) do
        churn(20)
        collectgarbage("step", size)
    end
end

-- Parameters of the collector from eager to lazy.
local pause, mul = collectgarbage("setpause", 100),
    collectgarbage("setstepmul", 100)
for _, p in ipairs {0, 10, 100, 200, 1000} do
    for _, m in ipairs {0, 40, 100, 400, 1000} do
        collectgarbage("setpause", p)
        collectgarbage("setstepmul", m)
        churn(times(60))
    end
end
collectgarbage("setpause", pause)
collectgarbage("setstepmul", mul)

-- Both modes in turn, with values that survive the switches.
local old = {}
for i = 1, times(30) do
    collectgarbage(i % 2 == 0 and "incremental" or "generational")
    old[i] = tree(5)
    churn(30)
    if i % 4 == 0 then collectgarbage() end
    if i > 3 then old[i - 3].extra = {old[i], i} end
end
for i, t in ipairs(old) do
    assert(leaves(t) == 32)
    if t.extra then assert(t.extra[2] == i + 3) end
end
add(#old > 0 and 1 or 0)
collectgarbage("incremental")

-- Weak values, weak keys, ephemerons.
do
    local n = times(2000)
    local values = setmetatable({}, {__mode = "v"})
    local keys = setmetatable({}, {__mode = "k"})
    local both = setmetatable({}, {__mode = "kv"})
    local anchor = {}
    for i = 1, n do
        local o = {i}
        values[i] = o
        keys[o] = {o, "needs its key"}
        both[o] = o
        if i % 10 == 0 then anchor[#anchor + 1] = o end
        if i % 500 == 0 then collectgarbage("step") end
    end
    collectgarbage()
    local left = 0
    for i = 1, n do
        assert((values[i] ~= nil) == (i % 10 == 0))
        left = left + (values[i] and 1 or 0)
    end
    for _, o in ipairs(anchor) do
        assert(keys[o][1] == o and both[o] == o)
        left = left - 1
    end
    assert(left == 0)
    local count = 0
    for _ in pairs(keys) do count = count + 1 end
    assert(count == #anchor)
    anchor = nil
    collectgarbage()
    assert(next(values) == nil and next(keys) == nil and next(both) == nil)
end

-- Finalizers that allocate, resurrect and make objects with finalizers.
do
    local ran, saved = 0, {}
    local mt = {}
    mt.__gc = function(o)
        ran = ran + 1
        local t = {}
        for i = 1, 20 do t[i] = ("x"):rep(i * 60) end
        assert(#table.concat(t) == 60 * 210)
        if o.lives > 0 then
            saved[#saved + 1] = o
            setmetatable({lives = o.lives - 1}, mt)
        end
    end
    local n = times(300)
    for i = 1, n do setmetatable({lives = 2, i}, mt) end
    for _ = 1, 6 do collectgarbage() end
    assert(ran == 3 * n, ran)
    assert(#saved == 2 * n)
    add(7)
end

-- A growing and shrinking heap: memory comes back to where it was.
collectgarbage() collectgarbage()
local base = collectgarbage("count")
for round = 1, 5 do
    local big = {}
    for i = 1, times(20000) do big[i] = {i, tostring(i)} end
    big = nil
    collectgarbage() collectgarbage()
    local now = collectgarbage("count")
    assert(now < base + 64, now - base)
end

-- Stopped, the collector leaves everything alone.
collectgarbage("stop")
assert(not collectgarbage("isrunning"))
local watched = setmetatable({{}}, {__mode = "v"})
churn(50)
assert(watched[1])
collectgarbage("restart")
collectgarbage()
assert(not watched[1])

-- What runs while the state is closed: finalizers last made, first called;
-- each allocates, and makes one more object with a finalizer.
closing = {}
for i = 1, 20 do
    closing[i] = setmetatable({}, {__gc = function()
        local t = {}
        for k = 1, 200 do t[k] = {k, ("c"):rep(k * 10)} end
        assert(#t[200][2] == 2000)
        setmetatable({}, {__gc = function() error("never shown") end})
        print("closed", i)
    end})
end

print("gc", sum)
