# Profiles taken while all is going on: tests/stress/profile.cc. With a sanitizer or for
# valgrind, which are mallocs themselves, on the core's names alone.

STRESS_PROFILE := $(BUILD)/tests/stress/profile
ifneq ($(filter release debug ubsan,$(VARIANT)),)
STRESS_LIB := $(BUILD)/libhakmem.a
STRESS_FLAGS := -DWITH_MALLOC=1
else
STRESS_LIB := $(BUILD)/libhakmem_core.a
STRESS_FLAGS :=
endif
$(STRESS_PROFILE): tests/stress/profile.cc $(STAMP) $(STRESS_LIB)
	$(SAY) CXX $@
	@mkdir -p $(@D)
	$(Q)$(CXX) -std=gnu++17 -O2 $(DEBUG_INFO) -Wall -Wextra -pthread -Iinclude \
	    $(STRESS_FLAGS) $(if $(filter 1,$(WERROR)),-Werror) \
	    $(filter -fsanitize=%,$(FLAGS)) $(CXXFLAGS) -o $@ $< $(STRESS_LIB) -ldl

CHECKS += check-profile
# STRESS_UNDER is a command to run it by: valgrind.
.PHONY: check-profile check-profile-stress
check-profile: $(STRESS_PROFILE) ## test: 20 profiles under load, while 250 threads come and go
	@$(STRESS_UNDER) $< 20 250

check-profile-stress: $(STRESS_PROFILE) ## test: 1,000 profiles, 10,000 threads: some minutes
	@$(STRESS_UNDER) $< 1000 10000
