# The sample adapter of adapters/README.md: a toy runtime (toy.c) on HAKMEM
# (hak_toy.c). Nothing of it is installed. `make sample` builds what a host would
# link, `make bench-sample` counts its instructions beside the C library's.

SAMPLE := adapters/sample/hak_toy.o
SAMPLE_RUNTIME := adapters/sample/toy.o

.PHONY: sample bench-sample
sample: $(BUILD)/libhakmem_sample.a ## use: build the sample adapter of adapters/README.md
	@:

$(BUILD)/libhakmem_sample.a: $(CORE_OBJECTS) $(SAMPLE:%=$(BUILD)/obj/%)
$(BUILD)/libhakmem_sample_testing.a: $(CORE_TESTING) \
    $(SAMPLE:%=$(BUILD)/testing/%)

# A program per file.
SAMPLE_TESTS := $(patsubst %.c,$(BUILD)/%,$(wildcard tests/sample/*.c))
TESTS += $(SAMPLE_TESTS)
$(eval $(call criterion,$(SAMPLE_TESTS),$(SAMPLE_RUNTIME:%=$(BUILD)/testing/%) \
    $(BUILD)/libhakmem_sample_testing.a))
$(SAMPLE_TESTS:$(BUILD)/%=$(BUILD)/testing/%.o): FLAGS += -Iadapters/sample

BENCH_SAMPLE := $(BUILD)/bench/bench_sample
$(BUILD)/obj/bench/bench_sample.o: FLAGS += -Iadapters/sample
$(BENCH_SAMPLE): $(BUILD)/obj/bench/bench_sample.o \
    $(SAMPLE_RUNTIME:%=$(BUILD)/obj/%) $(BUILD)/libhakmem_sample.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^

bench-sample: $(BENCH_SAMPLE) ## bench: the sample's instructions, with the C library and on HAKMEM
	@for how in libc hakmem; do printf '%-8s' $$how; \
	    valgrind --tool=callgrind --callgrind-out-file=/dev/null $< $$how 2>&1 | \
	    sed -n 's/.*Collected : //p'; done
