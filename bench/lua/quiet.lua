-- quiet.lua: hardly allocates.
--
-- Stands for inner loops over numbers that are already in place: planets
-- that pull each other, a sieve, a table of sums, all in arrays made once.
-- Shows what an allocator costs a program that does not need it. A unit
-- returns a sum over the results.

local SIEVE = 250000
local STEPS = 9000

local bodies = {}
local sieve = {}
local partition = {}

for i = 1, 5 do
    bodies[i] = { x = 0.0, y = 0.0, z = 0.0, vx = 0.0, vy = 0.0, vz = 0.0,
                  mass = 0.0 }
end
for i = 1, SIEVE do
    sieve[i] = true
end
for i = 0, 400 do
    partition[i] = 0
end

local function place()
    for i, body in ipairs(bodies) do
        body.x, body.y, body.z = i * 1.7, (i % 3) * 0.9, (i % 2) * 0.4
        body.vx, body.vy, body.vz = 0.01 * i, 0.3 / i, 0.02
        body.mass = 3.0 / (i * i)
    end
end

local function pull(a, b, dt)
    local dx, dy, dz = a.x - b.x, a.y - b.y, a.z - b.z
    local square = dx * dx + dy * dy + dz * dz + 0.01
    local force = dt / (square * square ^ 0.5)
    local of_a, of_b = a.mass * force, b.mass * force
    a.vx, a.vy, a.vz = a.vx - dx * of_b, a.vy - dy * of_b, a.vz - dz * of_b
    b.vx, b.vy, b.vz = b.vx + dx * of_a, b.vy + dy * of_a, b.vz + dz * of_a
end

local function advance(dt)
    for i = 1, #bodies do
        for j = i + 1, #bodies do
            pull(bodies[i], bodies[j], dt)
        end
    end
    for i = 1, #bodies do
        local body = bodies[i]
        body.x = body.x + body.vx * dt
        body.y = body.y + body.vy * dt
        body.z = body.z + body.vz * dt
    end
end

local function momentum()
    local sum = 0.0
    for i = 1, #bodies do
        local body = bodies[i]
        sum = sum + body.mass * (body.vx + body.vy + body.vz) + body.x
    end
    return sum
end

local function primes()
    for i = 2, SIEVE do
        sieve[i] = true
    end
    local count = 0
    for i = 2, SIEVE do
        if sieve[i] then
            count = count + 1
            for k = i * i, SIEVE, i do
                sieve[k] = false
            end
        end
    end
    return count
end

-- In how many ways 400 is a sum of numbers up to 120 (modulo a prime).
local function partitions()
    partition[0] = 1
    for i = 1, 400 do
        partition[i] = 0
    end
    for part = 1, 120 do
        for i = part, 400 do
            partition[i] = (partition[i] + partition[i - part]) % 998244353
        end
    end
    return partition[400]
end

return function()
    place()
    for _ = 1, STEPS do
        advance(0.01)
    end
    return math.floor(momentum() * 1e6) + primes() + partitions()
end
