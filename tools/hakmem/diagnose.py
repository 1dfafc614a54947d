"""From looks at a process to what is the matter with it.

On HAKMEM resident memory is divided into

    in use      blocks given out and not freed, with what their sizes are rounded up
    kept        free blocks that threads have at hand: bins, caches
    due         free slabs and runs that are to go back to the system
    between     the rest of what HAKMEM holds: free blocks on pages and in slabs where
                others are in use, our own tables
    elsewhere   what is not HAKMEM's: code, stacks, files, mmap, other allocators

and each has its own cure. The thresholds below are those of hakmem(1).
"""
import collections

from hakmem.words import MB, number, size

# Less than this is nobody's trouble, whatever the share.
LEAST = 8 * MB
SHARE = 0.25      # of what is resident: fragmentation, retention, kept
GROWTH = 0.01     # of what is in use, within the time, and at least GROWTH_LEAST
GROWTH_LEAST = 512 * 1024
CHANCE = 0.25     # of how far it goes up and down in half of the time
NO_MORE = 4       # times GROWTH where blocks do not become more
ELSEWHERE = 0.5   # of what is resident, and at least ELSEWHERE_LEAST: a remark
ELSEWHERE_LEAST = 32 * MB
LANES = ("tiny", "pool", "ace", "huge")
SIZES = {"tiny": "up to 1 KB", "pool": "1 to 52 KB", "ace": "52 KB to 2 MB",
         "huge": "above 2 MB"}

# A look: at the time `at`, seconds; `values`: sums over its copies of HAKMEM, or
# None: it is not on HAKMEM; `fresh`: they answer the question.
# `classes`: share.Class of all copies.
Look = collections.namedtuple("Look", "at values fresh rss anonymous cpu classes",
                              defaults=((),))
# kind: leak growth fragmentation retention kept level stale ...; text: what holds what;
# advice: what to do; bad: it counts for the exit status.
Finding = collections.namedtuple("Finding", "kind text advice bad")
STALE = "stale"   # the figures are those of before: nothing is known of now


# ---- sums ---------------------------------------------------------------------

def live(values):
    return sum(values.get(f"{lane}_live_bytes", 0) for lane in LANES)


def held(values):
    """What HAKMEM has resident, samples of a profile included."""
    return values.get("limit_used_bytes", values.get("populated_bytes", 0)) + \
        values.get("profile_bytes", 0)


def kept(values):
    return values.get("kept_bytes", 0)


def due(values):
    return values.get("due_bytes", 0)


def between(values):
    return max(0, held(values) - live(values) - kept(values) - due(values))


def parts(values, rss):
    """[(title, bytes)] of what is resident. They may be more than that: what HAKMEM
    has given out may never have been touched."""
    return [("in use", live(values)), ("kept at hand by heaps", kept(values)),
            ("free, due to go back", due(values)),
            ("free between blocks in use", between(values)),
            ("elsewhere than in HAKMEM", max(0, rss - held(values)))]


def count(values):
    """Blocks in use."""
    return sum(values.get(f"{lane}_allocs", 0) - values.get(f"{lane}_frees", 0)
               for lane in LANES)


def allocs(values):
    return sum(values.get(f"{lane}_allocs", 0) for lane in LANES)


Sizes = collections.namedtuple("Sizes", "block lane allocs live kept between")
SLAB = 64 << 10


def sizes(classes):
    """{bytes of a block: Sizes, in bytes but for allocs}, summed over a process's
    copies of HAKMEM. Slabs where blocks of all sizes lie are not counted."""
    found = {}
    for one in classes:
        live_bytes, kept_bytes = one.live * one.block, one.kept * one.block
        gap = max(0, one.slabs * SLAB - live_bytes - kept_bytes)
        before = found.get(one.block, Sizes(0, "", 0, 0, 0, 0))
        found[one.block] = Sizes(
            one.block, "tiny" if one.block <= 1024 else "pool",
            before.allocs + one.allocs, before.live + live_bytes,
            before.kept + kept_bytes, before.between + gap)
    return found


def worst_size(classes, key):
    """" (mostly blocks of 208 bytes)", where one size has most of it."""
    found = sizes(classes).values()
    whole = sum(getattr(one, key) for one in found)
    most = max(found, key=lambda one: getattr(one, key), default=None)
    if most is None or getattr(most, key) < 0.5 * whole or not whole:
        return ""
    return f", most of it in blocks of {number(most.block)} bytes"


# ---- growth ---------------------------------------------------------------------

def swing(points):
    """How far a series goes up and down."""
    return max(points) - min(points) if points else 0


def trend(points):
    """How much a series has grown for good, from its first half to its last one.

    A program's memory goes up and down, with its work and its collections: what
    counts is that both its lows and its highs have risen, the smaller of the two,
    and by more than chance makes of a saw that is looked at now and then.
    """
    middle = len(points) // 2
    first, last = points[:middle], points[middle:]
    if not first or not last:
        return 0
    rise = min(min(last) - min(first), max(last) - max(first))
    if rise < CHANCE * max(swing(first), swing(last)):
        return 0
    # Halves lie half the time apart.
    return max(0, 2 * rise)


def grows(points):
    """The bytes, 0: no growth worth a word."""
    rise = trend(points)
    base = min(points) if points else 0
    return rise if rise >= max(GROWTH_LEAST, GROWTH * base) else 0


def leaks(looks):
    """The same of what is in use. Blocks that become no more are others of chance
    sizes, as a cache replaces its entries, unless they grow a lot."""
    points = [live(look.values) for look in looks]
    rise = grows(points)
    if rise and not trend([count(look.values) for look in looks]) and \
            rise < NO_MORE * max(GROWTH_LEAST, GROWTH * min(points)):
        return 0
    return rise


def rate(rise, seconds):
    """In words."""
    return f"{size(rise / seconds * 60)} a minute"


def _lane_of_growth(looks):
    first, last = looks[0].values, looks[-1].values
    return max(LANES, key=lambda lane: last.get(f"{lane}_live_bytes", 0) -
               first.get(f"{lane}_live_bytes", 0))


def _leak(looks, rise):
    seconds = looks[-1].at - looks[0].at
    first, last = looks[0].values, looks[-1].values
    lane = _lane_of_growth(looks)
    more = count(last) - count(first)
    text = (f"a leak: blocks in use grow by {rate(rise, seconds)}, mostly"
            f" {SIZES[lane]} ({lane})")
    if more > 0:
        made = max(1, allocs(last) - allocs(first))
        text += (f"; {number(more)} more blocks, {100 * more / made:.0f} % of"
                 " those made meanwhile, were not freed")
        if live(last) > live(first):
            text += (f" (some {number((live(last) - live(first)) / more)} bytes"
                     " each)")
    return Finding(
        "leak", text, "find who makes them: hakmem profile PID tells who"
        " allocates what is not freed; in nginx look at /hakmem. A cache that"
        " is still filling looks the same: look again later, and bound it",
        True)


# ---- on HAKMEM --------------------------------------------------------------------

def _part(whole, part):
    return f"{size(part)} of {size(whole)}" + (
        f" ({100 * part / whole:.0f} %)" if whole else "")


def _retention(looks, settings):
    first, last = looks[0].values, looks[-1].values
    waiting = min(due(one.values) for one in looks)
    whole = max(held(last), 1)
    if waiting < max(LEAST, SHARE * whole):
        return None
    text = (f"retention: {_part(whole, due(last))} that HAKMEM has resident"
            " are free and wait to go back")
    delay = (settings or {}).get("HAKMEM_PURGE_DELAY")
    purged = last.get("purged_bytes", 0) - first.get("purged_bytes", 0)
    if delay is not None and delay.isdigit() and int(delay) > 1000:
        advice = (f"it was started with HAKMEM_PURGE_DELAY={delay}"
                  " milliseconds: a smaller one, or none (1000), gives it"
                  " back")
    elif (settings or {}).get("HAKMEM_BACKGROUND_THREAD") in (
            "0", "off", "no", "false"):
        advice = ("it was started with HAKMEM_BACKGROUND_THREAD=0 and sleeps:"
                  " without that it goes back by itself")
    elif purged > 0:
        advice = (f"it is going back ({size(purged)} meanwhile): look again in"
                  " some seconds")
    else:
        advice = ("call hak_trim(), or malloc_trim(0), where the program has"
                  " freed much")
    return Finding("retention", text, advice, True)


def _fragmentation(looks):
    last = looks[-1].values
    least = min(between(one.values) for one in looks)
    whole = max(held(last), 1)
    if least < max(LEAST, SHARE * whole):
        return None
    gaps = {lane: last.get(f"{lane}_held_bytes", 0) -
            last.get(f"{lane}_live_bytes", 0) for lane in ("tiny", "pool",
                                                           "ace")}
    lane = max(gaps, key=gaps.get)
    return Finding(
        "fragmentation", f"fragmentation: {_part(whole, between(last))} that"
        " HAKMEM has resident are free blocks between blocks in use, mostly"
        f" {SIZES[lane]} ({lane}){worst_size(looks[-1].classes, 'between')};"
        f" {size(live(last))} in"
        f" {number(count(last))} blocks are in use",
        "what stays was made among what went: make what lives long first or"
        " apart (an explicit heap, a process of its own), or restart the"
        " program after such a peak", True)


def _kept(looks):
    last = looks[-1].values
    least = min(kept(one.values) for one in looks)
    whole = max(held(last), 1)
    if least < max(LEAST, SHARE * whole):
        return None
    return Finding(
        "kept", f"kept: {_part(whole, kept(last))} that HAKMEM has resident"
        f" are free blocks which {number(last.get('heaps', 0))} heaps have at"
        " hand", "fewer threads, or hak_trim() when they are idle", True)


def _elsewhere(looks):
    last = looks[-1]
    other = max(0, last.rss - held(last.values))
    if other < max(ELSEWHERE_LEAST, ELSEWHERE * last.rss):
        return None
    return Finding(
        "elsewhere", f"elsewhere: {_part(last.rss, other)} resident are not"
        " HAKMEM's: files and code, stacks, mmap, another allocator",
        "see which mappings these are: pmap -x PID", False)


def _growth_elsewhere(looks):
    """Resident memory that grows while what HAKMEM holds does not."""
    rise = grows([look.anonymous - held(look.values) for look in looks])
    if not rise or min(look.anonymous - held(look.values)
                       for look in looks) < 0:
        return None
    return Finding(
        "growth", "growth elsewhere: memory that is not HAKMEM's grows by"
        f" {rate(rise, looks[-1].at - looks[0].at)} (mmap, stacks, another"
        " allocator)", "strace -e mmap,munmap,brk -p PID shows who asks the"
        " kernel for it", True)


def _level(looks):
    """Nothing grows: whether that is a cache at work or a program at rest."""
    first, last = looks[0].values, looks[-1].values
    made = allocs(last) - allocs(first)
    if not looks[-1].fresh:
        return Finding(STALE, f"can't be told: {size(live(last))} were in use"
                       " when it last looked at itself; it has called for"
                       " nothing new since, and what it has freed since may be"
                       " missing here",
                       "look while it works (a request, a key pressed): from"
                       " the first memory that it asks for on it answers",
                       False)
    if made == 0:
        return Finding("idle", f"level: {size(live(last))} in use, and nothing"
                       " was allocated meanwhile", "", False)
    swings = swing([live(look.values) for look in looks])
    if swings >= max(GROWTH_LEAST, 0.1 * live(last)):
        return Finding(
            "level", f"level: what is in use goes up and down by"
            f" {size(swings)} and does not grow beyond that: no leak, or one"
            " that is small beside it",
            "look longer to see a slow one: --seconds 600", False)
    return Finding(
        "level", f"level: {size(live(last))} in use, in"
        f" {number(count(last))} blocks, while {number(made)} were made and"
        " as many freed: a cache or a working set, no leak", "", False)


def since_fresh(looks):
    """Without the first ones, whose figures are those of before we asked."""
    first = next((i for i, look in enumerate(looks) if look.fresh), 0)
    return looks[first:] if len(looks) - first >= 4 else looks


def on_hakmem(looks, settings=None):
    """Findings, the worst first; never none."""
    found = []
    looks = since_fresh(looks)
    rise = leaks(looks)
    if rise:
        found.append(_leak(looks, rise))
    elif not looks[-1].fresh:
        found.append(_level(looks))
    found += [one for one in (_fragmentation(looks),
                              _retention(looks, settings), _kept(looks),
                              _growth_elsewhere(looks)) if one is not None]
    if not rise and looks[-1].fresh:
        found.append(_level(looks))
    other = _elsewhere(looks)
    return found + ([other] if other is not None else [])


# ---- not on HAKMEM ----------------------------------------------------------------

def without(looks, memory, silent=False):
    """Findings from what /proc says alone; `memory`: processes.Memory or None.
    `silent`: it is on HAKMEM all the same."""
    seconds = looks[-1].at - looks[0].at
    rise = grows([look.anonymous for look in looks])
    found = []
    if rise:
        found.append(Finding(
            "growth", "growth: its own memory grows by"
            f" {rate(rise, seconds)}: a leak, a cache that fills, or free"
            " memory that its allocator keeps",
            "on HAKMEM it can be told which: hakmem run -- PROGRAM, then"
            " hakmem doctor PID" if not silent else "HAKMEM_SHOW_STATS=1 shows"
            " at its exit who has it", True))
    if memory is not None and memory.arenas >= 4 and \
            memory.arena_bytes >= max(LEAST, SHARE * memory.anonymous):
        found.append(Finding(
            "arenas", f"arenas: {size(memory.arena_bytes)} lie in"
            f" {memory.arenas} of glibc's heaps for threads, of which each"
            " keeps what its threads freed",
            "MALLOC_ARENA_MAX=2 makes them fewer; hakmem compare -- PROGRAM"
            " shows what HAKMEM makes of it", True))
    if not found:
        found.append(Finding(
            "unknown", "level: its memory does not grow; what in it is in use"
            " and what is free can't be told from outside",
            "start it by hakmem run -- PROGRAM to see that" if not silent else
            "HAKMEM_SHOW_STATS=1 shows it at its exit", False))
    return found
