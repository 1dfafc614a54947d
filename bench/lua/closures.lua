-- closures.lua: closures and coroutines.
--
-- Stands for code in functional and asynchronous style: pipelines built of
-- small functions, objects made of closures over upvalues, generators, and
-- a scheduler of many short tasks. A unit returns a sum of the results.

local TASKS = 350

-- Objects made of closures ----------------------------------------------

local function account(start)
    local balance, moves = start, 0
    local function add(amount)
        balance = balance + amount
        moves = moves + 1
        return balance
    end
    local function read()
        return balance, moves
    end
    return { add = add, read = read,
             fork = function() return account(balance // 2) end }
end

local function accounts()
    local sum = 0
    for i = 1, 1500 do
        local one = account(i)
        one.add(i % 7)
        local other = one.fork()
        other.add(3)
        local balance, moves = other.read()
        sum = sum + balance * moves + one.read()
    end
    return sum
end

-- Pipelines -------------------------------------------------------------

local function compose(f, g)
    return function(x) return g(f(x)) end
end

local function adder(n)
    return function(x) return x + n end
end

local function clamp(n)
    return function(x) return x % n end
end

local function pipelines()
    local sum = 0
    for i = 1, 500 do
        local pipe = adder(i)
        for k = 1, 8 do
            pipe = compose(pipe, k % 2 == 0 and adder(k) or clamp(1000 + k))
        end
        sum = sum + pipe(i * 17) + pipe(i)
    end
    return sum
end

-- Generators ------------------------------------------------------------

local function range(first, last)
    return coroutine.wrap(function()
        for i = first, last do
            coroutine.yield(i)
        end
    end)
end

local function filtered(source, keep)
    return coroutine.wrap(function()
        for value in source do
            if keep(value) then
                coroutine.yield(value)
            end
        end
    end)
end

local function generators()
    local sum = 0
    for i = 1, 180 do
        local odd = filtered(range(i, i + 20), function(value)
            return value % 3 ~= i % 3
        end)
        for value in odd do
            sum = sum + value
        end
    end
    return sum
end

-- A scheduler with timers and mailboxes ----------------------------------

local function worker(id, box)
    return function()
        local done = 0
        for turn = 1, id % 6 + 2 do
            box[#box + 1] = { from = id, turn = turn }
            done = done + coroutine.yield(turn) * id % 13
        end
        return "done", done
    end
end

local function drain(box)
    local sum = 0
    for i = #box, 1, -1 do
        sum = sum + box[i].from * box[i].turn
        box[i] = nil
    end
    return sum
end

local function schedule()
    local ready, box, sum = {}, {}, 0
    for id = 1, TASKS do
        ready[id] = coroutine.create(worker(id, box))
    end
    while #ready > 0 do
        local next_ready = {}
        for i, task in ipairs(ready) do
            local _, state, result = coroutine.resume(task, i)
            if state == "done" then
                sum = sum + result
            else
                next_ready[#next_ready + 1] = task
            end
        end
        sum = sum + drain(box)
        ready = next_ready
    end
    return sum
end

return function()
    local sum = 0
    for _ = 1, 9 do
        sum = sum + accounts() + pipelines() + generators() + schedule()
    end
    return sum
end
