# Benchmarks: malloc beside other allocators. Those of an adapter are in its
# build.mk.

DEPS += bench

# One source, a program per allocator; `none` is the loop by itself.
MIXED := hakmem system mimalloc jemalloc tcmalloc none
BENCHES := $(MIXED:%=$(BUILD)/bench/bench_random_mixed_%)
# One program for every allocator that is preloaded.
BENCH_MALLOC := $(BUILD)/bench/bench_malloc

.PHONY: bench bench-insn check-insn
# BENCH_ARGS goes to bench.py: BENCH_ARGS='--quick --rows pool'. PEERS: a folder
# with the sources of other allocators (bench/peers), in the place of Debian's.
PEERS :=
bench: ## bench: malloc beside other allocators: time, memory, faults, a picture
	@.ci/install-deps bench
	@$(MAKE) lib $(BUILD)/bench/bench_random_mixed_system $(BENCH_MALLOC)
	$(if $(PEERS),@bench/peers $(PEERS))
	@$(MAKE) HARDENED=1 BUILD=$(BUILD)-hardened lib
	@$(PYTHON) bench/bench.py --build $(BUILD) $(PEERS:%=--peers %) $(BENCH_ARGS)

bench-insn: ## bench: instructions per operation (callgrind), loop subtracted
	@.ci/install-deps bench
	@$(MAKE) $(BENCHES)
	@$(PYTHON) bench/insn.py --build $(BUILD)
	@$(MAKE) check-insn

# BENCH_ARGS=--write: a change is meant to count differently.
STILL_CLOCK := $(BUILD)/bench/still_clock.so
$(BUILD)/obj/bench/still_clock.o: FLAGS += -fPIC
$(STILL_CLOCK): $(BUILD)/obj/bench/still_clock.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $^

check-insn: $(BUILD)/libhakmem.so $(BENCH_MALLOC) $(STILL_CLOCK) ## check: no row takes more instructions than bench/insn.csv says
	@$(PYTHON) bench/insn_check.py --build $(BUILD) --cc '$(CC)' $(BENCH_ARGS)

# Workers of a server that forks: calls of malloc and free stay calls.
BENCH_FORK := $(BUILD)/bench/bench_fork
$(BUILD)/obj/bench/bench_fork.o: FLAGS += -fno-builtin-malloc -fno-builtin-free
$(BENCH_FORK): $(BUILD)/obj/bench/bench_fork.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

.PHONY: bench-fork
bench-fork: ## bench: memory of forked workers beside four other allocators
	@.ci/install-deps bench
	@$(MAKE) lib $(BENCH_FORK)
	@$(PYTHON) bench/fork.py --build $(BUILD)

BENCH_LIMITS := $(BUILD)/bench/bench_limits
$(BUILD)/obj/bench/bench_limits.o: FLAGS += -fno-builtin-malloc \
    -fno-builtin-free
$(BENCH_LIMITS): $(BUILD)/obj/bench/bench_limits.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

# BENCH_ARGS goes to limits.py: other peers, Python.
.PHONY: bench-limits
bench-limits: ## bench: what limits on address space and locked memory do
	@.ci/install-deps bench
	@$(MAKE) lib $(BENCH_LIMITS)
	@$(PYTHON) bench/limits.py --build $(BUILD) $(BENCH_ARGS)

BENCH_BACK := $(BUILD)/bench/bench_back
$(BUILD)/obj/bench/bench_back.o: FLAGS += -fno-builtin-malloc -fno-builtin-free
$(BENCH_BACK): $(BUILD)/obj/bench/bench_back.o
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl

# BENCH_ARGS goes to back.py: other peers, some of the sets.
.PHONY: bench-back bench-back-picture
bench-back: ## bench: memory that was freed: what a sleeping process keeps, a picture
	@.ci/install-deps bench bench-back
	@$(MAKE) lib $(BENCH_BACK)
	@$(MAKE) HARDENED=1 BUILD=$(BUILD)-hardened lib
	@$(PYTHON) bench/back.py --build $(BUILD) $(BENCH_ARGS)

bench-back-picture: ## bench: README's picture of it, docs/back.svg, made anew
	@$(MAKE) bench-back BENCH_ARGS='--sets curve $(BENCH_ARGS)'
	@cp $(BUILD)/bench/back.svg docs/back.svg

MIXED_hakmem := -DBENCH_HEADER='<hakmem.h>' -DBENCH_MALLOC=hak_malloc \
    -DBENCH_FREE=hak_free
MIXED_system := -DBENCH_HEADER='<stdlib.h>' -DBENCH_MALLOC=malloc \
    -DBENCH_FREE=free
MIXED_mimalloc := -DBENCH_HEADER='<mimalloc.h>' -DBENCH_MALLOC=mi_malloc \
    -DBENCH_FREE=mi_free
MIXED_jemalloc := $(MIXED_system)
MIXED_tcmalloc := -DBENCH_HEADER='<gperftools/tcmalloc.h>' \
    -DBENCH_MALLOC=tc_malloc -DBENCH_FREE=tc_free
MIXED_none :=

MIXED_LIBS_mimalloc := -lmimalloc
MIXED_LIBS_jemalloc := -Wl,--no-as-needed -ljemalloc
MIXED_LIBS_tcmalloc := -ltcmalloc_minimal

# -fno-plt: the peers are shared libraries; a call of theirs shall not pay
# for a detour that ours, linked statically, does not take.
$(BENCHES): $(BUILD)/bench/bench_random_mixed_%: bench/random_mixed.c \
    $(STAMP) $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -fno-builtin -fno-plt $(MIXED_$*) -MF $@.d -MT $@ \
	    -DBENCH_NAME='"$*"' $< -o $@ $(LDFLAGS) $(BUILD)/libhakmem_core.a \
	    $(MIXED_LIBS_$*)

# Calls of malloc and free stay calls.
BENCH_MALLOC_OBJECTS := $(patsubst %.c,$(BUILD)/obj/%.o, \
    $(wildcard bench/bench_malloc*.c))
$(BENCH_MALLOC_OBJECTS): FLAGS += -fno-plt -fno-builtin-malloc \
    -fno-builtin-free -fno-builtin-calloc -fno-builtin-realloc
$(BENCH_MALLOC): $(BENCH_MALLOC_OBJECTS)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ -ldl
