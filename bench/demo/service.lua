-- A service for `make demo`'s profile: answers requests from a cache of 2,000 pages,
-- and keeps a log that nobody empties. Which line holds the memory?
cache, queue, first, log = {}, {}, 1, {}

local function render(number)
    local lines = {}
    for i = 1, 30 do
        lines[i] = "line " .. number .. " " .. i
    end
    return lines
end

local function page(number)
    if cache[number] == nil then
        cache[number] = render(number)
        queue[#queue + 1] = number
        if #queue - first >= 2000 then
            cache[queue[first]] = nil
            first = first + 1
        end
    end
    return cache[number]
end

local function remember(number, size)
    log[#log + 1] = { request = number, size = size }
end

local function answer(number)
    local text = table.concat(page(number % 5000), "\n")
    remember(number, #text)
    return text
end

local total = 0
for number = 1, 60000 do
    total = total + #answer(number * 7919)
end
collectgarbage()
print(total .. " bytes in " .. #log .. " answers")
