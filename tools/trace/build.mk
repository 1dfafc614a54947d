# Traces of programs' allocations: libhakmem_record.so writes them (hakmem record),
# hakmem-replay reads them and does it again (hakmem replay). They need zstd, linked
# into them: a program that is recorded gets no other library.

TRACE_RECORD := $(BUILD)/libhakmem_record.so
TRACE_REPLAY := $(BUILD)/hakmem-replay
HAVE_ZSTD := $(if $(CROSS),,$(shell printf '\043include <zstd.h>\n' | \
    $(CC) $(CFLAGS) -E - >/dev/null 2>&1 && echo 1))
# Without an archive of it the shared library does.
ZSTD_LIBS ?= $(if $(filter /%,$(shell $(CC) -print-file-name=libzstd.a)),-l:libzstd.a,-lzstd)
FLAGS_ALSO += $(ZSTD_LIBS)

.PHONY: trace
ifeq ($(HAVE_ZSTD),1)

# The address and thread sanitizers are a malloc themselves.
TRACE_TOOLS := $(TRACE_REPLAY) $(if $(filter asan tsan,$(VARIANT)),,$(TRACE_RECORD))
ALL += trace
INSTALL += $(TRACE_TOOLS:%=755:%:$(LIBDIR)/hakmem/)

trace: $(TRACE_TOOLS) ## use: build what hakmem record and hakmem replay need
	@:

else

LEFT_OUT += $(call left_out,hakmem record and replay,no zstd.h,libzstd-dev)
trace: ; @$(call without,hakmem record,no zstd.h,libzstd-dev)

endif

# Calls of malloc and free stay calls.
$(BUILD)/obj/tools/trace/%.o: FLAGS += -fno-builtin-malloc -fno-builtin-free \
    -fno-builtin-calloc -fno-builtin-realloc

# nodelete: threads end in it.
$(TRACE_RECORD): $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard tools/trace/record*.c))
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $^ -Wl,--exclude-libs,ALL -Wl,-z,nodelete \
	    -Wl,-z,now -Wl,-z,defs $(ZSTD_LIBS) -ldl

TRACE_READER := $(BUILD)/obj/tools/trace/reader.o
$(TRACE_REPLAY): $(TRACE_READER) $(patsubst %,$(BUILD)/obj/tools/trace/%.o, \
    main plan replay)
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ $(ZSTD_LIBS) -ldl

# ---- tests --------------------------------------------------------------------

TRACE_TESTS := $(patsubst %,$(BUILD)/tests/trace/%,counts lives fuzz libcounter.so \
    libplain.so)

.PHONY: check-trace check-trace-run
CHECKS += check-trace
check-trace: all ## test: hakmem record and hakmem replay, the reader on damaged traces
	@.ci/install-deps trace
	@$(MAKE) check-trace-run
check-trace-run: lib trace command $(TRACE_TESTS)
	@HAKMEM_BUILD='$(abspath $(BUILD))' $(PYTHON) -B -m unittest discover \
	    -s tests/trace $(if $(filter 1,$(V)),-v)

$(filter-out %.so %/fuzz,$(TRACE_TESTS)): $(BUILD)/tests/trace/%: \
    tests/trace/%.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -fno-builtin $(CFLAGS) $(LDFLAGS) -o $@ $<

$(filter %.so,$(TRACE_TESTS)): $(BUILD)/tests/trace/%.so: tests/trace/%.c $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) -fno-builtin $(CFLAGS) $(LDFLAGS) -shared -o $@ $< -ldl

# The reader, under the address sanitizer whatever the variant.
$(BUILD)/tests/trace/fuzz: tests/trace/fuzz.c tools/trace/reader.c \
    tools/trace/plan.c $(wildcard tools/trace/*.h) $(STAMP)
	$(SAY) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(FLAGS) $(CFLAGS) -O1 -fsanitize=address,undefined \
	    -fno-sanitize-recover=all $(LDFLAGS) -o $@ $(filter %.c,$^) $(ZSTD_LIBS)

# ---- benchmarks ---------------------------------------------------------------

TRACES := $(BUILD)/traces/made

.PHONY: traces bench-traces
DEPS += trace bench-traces
# TRACE_ARGS goes to traces.py: '--programs lua'.
traces: ## bench: record eleven of Debian's programs, for bench-traces
	@.ci/install-deps bench-traces
	@$(MAKE) trace command
	@$(PYTHON) bench/traces.py --build $(BUILD) $(TRACE_ARGS) && touch $(TRACES)

# BENCH_ARGS goes to traces_report.py: '--rounds 3 --peer mimalloc=FILE'.
bench-traces: ## bench: traces of real programs replayed on five allocators, a CSV file
	@.ci/install-deps bench-traces
	@$(MAKE) lib trace command
	@[ -f $(TRACES) ] || $(MAKE) traces
	@$(PYTHON) bench/traces_report.py --build $(BUILD) $(BENCH_ARGS)
