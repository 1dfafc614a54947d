-- tables.lua - arrays and hashes that grow, shrink and change their kind;
-- sorting; metatables and objects.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

local seed = 42
local function random(n)
    seed = (seed * 1103515245 + 12345) % 2147483648
    return seed // 65536 % n + 1
end

-- Every length up to some hundreds, as array and as hash, grown and cleared.
for n = 0, times(300) do
    local array, hash = {}, {}
    for i = 1, n do
        array[i] = i
        hash["k" .. i] = i
    end
    assert(#array == n)
    for i = 1, n do
        assert(array[i] == i and hash["k" .. i] == i)
        add(array[i] + hash["k" .. i])
    end
    for i = n, 1, -1 do
        array[i] = nil
        hash["k" .. i] = nil
        assert(#array == i - 1)
    end
    assert(next(array) == nil and next(hash) == nil)
    array[1], hash.again = true, true
    assert(array[1] and hash.again)
end

-- Holes: the array part and the hash part swap entries at each rehash.
local t = {}
local n = times(20000)
for i = n, 1, -1 do t[i] = i end
for i = 1, n, 2 do t[i] = nil end
for i = 2, n, 2 do assert(t[i] == i) end
for i = 1, n, 2 do t[i] = -i end
local s = 0
for i = 1, n do s = s + t[i] end
assert(s == (n % 2 == 0 and n // 2 or -(n + 1) // 2))
for k in pairs(t) do t[k] = nil end
assert(next(t) == nil)

-- A table used as queue and as stack for long.
local queue, first, last = {}, 1, 0
for i = 1, times(50000) do
    last = last + 1
    queue[last] = {i}
    if i % 3 ~= 0 then
        assert(queue[first][1] == first)
        queue[first] = nil
        first = first + 1
    end
end
while first <= last do
    assert(queue[first][1] == first)
    queue[first] = nil
    first = first + 1
end
assert(next(queue) == nil)
add(last)

-- insert, remove, move, unpack, concat, pack.
local list = {}
for i = 1, times(2000) do table.insert(list, random(#list + 1), i) end
local seen = {}
for _, v in ipairs(list) do
    add(v)
    assert(not seen[v])
    seen[v] = true
end
while #list > 0 do table.remove(list, random(#list)) end
local moved = table.move({1, 2, 3, 4, 5}, 2, 5, 1)
assert(table.concat(moved, ",") == "2,3,4,5,5")
assert(select("#", table.unpack({}, 1, 200)) == 200)
assert(table.pack(1, nil, 3).n == 3)

-- Sorting, with orders that allocate and one that is wrong.
for _, n in ipairs {0, 1, 2, 3, 10, 100, times(3000)} do
    local a = {}
    for i = 1, n do a[i] = random(1000) end
    table.sort(a)
    for i = 2, n do assert(a[i - 1] <= a[i]) end
    table.sort(a, function(x, y)
        return string.format("%05d", x) > string.format("%05d", y)
    end)
    for i = 2, n do assert(a[i - 1] >= a[i]) end
    for i = 1, n do add(a[i]) end
end
local wrong = {}
for i = 1, 500 do wrong[i] = random(10) end
pcall(table.sort, wrong, function() return true end)

-- Nested tables with every type of key.
local keys = {1, -1, 0.5, "s", true, false, print, {}, coroutine.create(print)}
local nest = {}
for round = 1, times(200) do
    local at = nest
    for i = 1, #keys do
        local k = keys[(i + round) % #keys + 1]
        at[k] = at[k] or {}
        at = at[k]
    end
    at.round = round
end
assert(next(nest))
nest = nil

-- Classes, inheritance, all arithmetic and order events.
local Point = {}
Point.__index = Point
local function point(x, y) return setmetatable({x = x, y = y}, Point) end
function Point.__add(a, b) return point(a.x + b.x, a.y + b.y) end
function Point.__unm(a) return point(-a.x, -a.y) end
function Point.__eq(a, b) return a.x == b.x and a.y == b.y end
function Point.__lt(a, b) return a.x < b.x end
function Point.__le(a, b) return a.x <= b.x end
function Point.__tostring(a) return "(" .. a.x .. "," .. a.y .. ")" end
function Point.__concat(a, b) return tostring(a) .. tostring(b) end
function Point.__len(a) return a.x end
function Point.__call(a, k) return a[k] end
local p = point(0, 0)
for i = 1, times(20000) do p = p + point(i, -i) end
local m = times(20000)
assert(p.x == m * (m + 1) // 2 and p == -point(-p.x, -p.y))
assert(p("y") == -p.x and #point(9, 1) == 9 and point(1, 2) < point(2, 1))
assert(point(1, 2) .. point(3, 4) == "(1,2)(3,4)")

local base = {greet = function(self) return "i am " .. self.name end}
for depth = 1, times(100) do
    base = setmetatable({}, {__index = base})
end
assert(setmetatable({name = "deep"}, {__index = base}):greet() == "i am deep")

-- Proxies, default values, read-only tables.
local log = {}
local proxy = setmetatable({}, {
    __index = function(_, k)
        log[#log + 1] = k
        return k .. "!"
    end,
    __newindex = function(t, k, v) rawset(t, k, {v}) end,
    __pairs = function(t) return next, {a = 1}, nil end,
})
for i = 1, times(1000) do
    assert(proxy["k" .. i] == "k" .. i .. "!")
    proxy["v" .. i] = i
    assert(proxy["v" .. i][1] == i)
end
assert(#log == times(1000))
for k, v in pairs(proxy) do assert(k == "a" and v == 1) end
add(p.x)

print("tables", sum)
