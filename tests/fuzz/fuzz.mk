# Fuzzing, and its corpus as a test.

FUZZ_PARTS := ops script threads model

# The corpus as a test: the library as it is shipped, no libFuzzer.
REPLAY := $(BUILD)/tests/fuzz/replay
TESTS += $(REPLAY)
$(REPLAY): $(patsubst %,$(BUILD)/testing/tests/fuzz/%.o,replay $(FUZZ_PARTS)) \
    $(SUPPORT) $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -o $@ $^ $(TEST_LINK) -lm -ldl

# With VARIANT=fuzz or fuzzasan.
FUZZER := $(BUILD)/fuzz/ops
$(FUZZER): $(patsubst %,$(BUILD)/obj/tests/fuzz/%.o,$(FUZZ_PARTS)) \
    $(BUILD)/libhakmem_core.a
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -fsanitize=fuzzer -o $@ $^

# What is looked for are new paths in the core, and operations that lead there.
$(BUILD)/obj/tests/fuzz/model.o: FLAGS += \
    $(if $(filter fuzz%,$(VARIANT)),-fno-sanitize=fuzzer-no-link)

FUZZ_SECONDS ?= 600
FUZZ_CORPUS := tests/fuzz/corpus
FUZZ_OPTIONS := -timeout=60 -rss_limit_mb=2048 -detect_leaks=0 \
    -max_len=2048 -len_control=10 -print_final_stats=1

.PHONY: fuzz fuzz-run fuzz-corpus fuzz-merge
# In the asan build free memory goes back at once, not after a second.
fuzz: ## test: fuzz for FUZZ_SECONDS each: the release and the asan build (clang)
	@.ci/install-deps fuzz
	@$(MAKE) fuzz-run VARIANT=fuzz CC=clang BUILD=$(call BESIDE,fuzz)
	@HAKMEM_PURGE_DELAY=0 $(MAKE) fuzz-run VARIANT=fuzzasan CC=clang BUILD=$(call BESIDE,fuzzasan)

# New inputs go to the first directory, those that fail to $(BUILD)/fuzz.
fuzz-run: $(FUZZER)
	@mkdir -p $(BUILD)/fuzz/corpus
	$(FUZZER) $(FUZZ_OPTIONS) -max_total_time=$(FUZZ_SECONDS) \
	    -artifact_prefix=$(BUILD)/fuzz/ $(BUILD)/fuzz/corpus $(FUZZ_CORPUS)

# After `make fuzz`, with the same BUILD: the fewest inputs that lead everywhere.
# Inputs that once failed are called found-WHAT and stay.
fuzz-corpus: ## test: what `make fuzz` has found becomes the corpus that is replayed
	@$(MAKE) fuzz-merge VARIANT=fuzz CC=clang BUILD=$(call BESIDE,fuzz) \
	    FOUND='$(wildcard $(addsuffix /fuzz/corpus,$(foreach variant,\
	        fuzz fuzzasan,$(call BESIDE,$(variant)))))'

fuzz-merge: $(FUZZER)
	@rm -rf $(BUILD)/fuzz/merged && mkdir -p $(BUILD)/fuzz/merged
	$(FUZZER) -merge=1 -use_counters=0 $(BUILD)/fuzz/merged \
	    $(FUZZ_CORPUS) $(FOUND)
	@find $(FUZZ_CORPUS) -type f ! -name 'found-*' -delete
	@cp $(BUILD)/fuzz/merged/* $(FUZZ_CORPUS)
