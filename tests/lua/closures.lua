-- closures.lua - functions and their upvalues, open and closed; code that is
-- compiled, dumped and loaded again; varargs; to-be-closed variables.
-- Checks itself; prints the same lines on every allocator.

local scale = tonumber(os.getenv("HAKMEM_TEST_SCALE") or 1)
local function times(n) return math.max(1, n // scale) end

local sum = 0
local function add(n) sum = (sum * 31 + n) % 1000000007 end

-- Counters that share an upvalue.
local function counter()
    local n = 0
    return function() n = n + 1 return n end,
        function() return n end
end
local all = {}
for i = 1, times(5000) do
    local up, get = counter()
    for _ = 1, i % 4 do up() end
    all[i] = get
end
collectgarbage()
for i, get in ipairs(all) do
    assert(get() == i % 4)
    add(get())
end
all = nil

-- A fresh variable in each turn of a loop.
local list = {}
for i = 1, times(3000) do
    local j = i * 2
    list[i] = function(d) j = j + d return j end
end
for i, f in ipairs(list) do assert(f(1) == i * 2 + 1 and f(1) == i * 2 + 2) end

-- Many upvalues in one function, many functions on one upvalue.
local names, values = {}, {}
for i = 1, 100 do
    names[i] = "v" .. i
    values[i] = tostring(i)
end
local code = "local " .. table.concat(names, ",") .. " = " ..
    table.concat(values, ",") .. "\nreturn function() return " ..
    table.concat(names, "+") .. " end"
for i = 1, times(200) do add(assert(load(code))()()) end

-- Long code: many constants, many functions, long strings in it.
local parts = {"local t = {}"}
for i = 1, 2000 do
    parts[#parts + 1] = ("t[%d] = function() return 'c%d', %d.5 end")
        :format(i, i, i)
end
parts[#parts + 1] = "return t"
local source = table.concat(parts, "\n")
for round = 1, times(10) do
    local t = assert(load(source))()
    local c, n = t[2000]()
    assert(#t == 2000 and c == "c2000" and n == 2000.5)
    local dumped = string.dump(assert(load(source)), round % 2 == 0)
    t = assert(load(dumped, "dumped", "b"))()
    assert(select(2, t[77]()) == 77.5)
    for i = 1, #t do add(#t[i]() + select(2, t[i]()) * 2 // 1 | 0) end
end

-- Source read in pieces of every length.
for piece = 1, 60 do
    local text, at = "local x = 0 for i = 1, 10 do x = x + i end return x", 1
    local chunk = assert(load(function()
        local part = text:sub(at, at + piece - 1)
        at = at + piece
        return #part > 0 and part or nil
    end))
    assert(chunk() == 55)
end

-- Varargs of all lengths; tail calls without end.
local function count(...) return select("#", ...) end
local function pass(...) return ... end
for n = 0, times(2000), 7 do
    assert(count(table.unpack({}, 1, n)) == n)
    assert(count(pass(table.unpack({}, 1, n))) == n)
end
local function tail(n) if n == 0 then return "done" end return tail(n - 1) end
assert(tail(times(1000000)) == "done")

-- Functions that make functions, deep.
local function compose(n)
    if n == 0 then return function(x) return x end end
    local inner = compose(n - 1)
    return function(x) return inner(x + 1) end
end
for n = 1, 150 do add(compose(n)(0)) end
local y = (function(f)
    return (function(x) return x(x) end)(function(x)
        return f(function(...) return x(x)(...) end)
    end)
end)
local factorial = y(function(self)
    return function(n) return n == 0 and 1 or n * self(n - 1) end
end)
assert(factorial(20) == 2432902008176640000)

-- Upvalues looked at and joined through the debug library.
for i = 1, times(1000) do
    local up1, get1 = counter()
    local up2, get2 = counter()
    up1()
    debug.upvaluejoin(up2, 1, up1, 1)
    up2()
    assert(get1() == 2 and get2() == 0)
    assert(debug.setupvalue(up1, 1, 40) == "n" and up2() == 41)
end

-- Closed on the way out, in reverse order, also by break and goto.
local order = {}
local function closer(name)
    return setmetatable({}, {__close = function()
        order[#order + 1] = name
    end})
end
for i = 1, times(1000) do
    order = {}
    for k = 1, 3 do
        local c <close> = closer(k)
        if k == 2 then break end
    end
    do
        local a <close> = closer("a")
        local b <close> = closer("b")
        goto out
    end
    ::out::
    assert(table.concat(order) == "12ba")
    add(#order)
end

print("closures", sum)
