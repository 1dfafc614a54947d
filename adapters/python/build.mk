# The CPython adapter: hakmem_py for PYTHON, whatever its version, in
# hakmem_py/ of $(PYTHON_DIR), which is what PYTHONPATH has to name, compiled as
# pip does it. Wheels are setup.py's.

ifneq ($(filter python% check-python% bench-python%,$(MAKECMDGOALS)),)
PYTHON_SAYS := $(shell command -v $(PYTHON) >/dev/null && $(PYTHON) -c 'import sysconfig as s, platform as p; \
    print(p.python_version(), s.get_path("include"), \
        s.get_config_var("EXT_SUFFIX"))')
ifeq ($(wildcard $(word 2,$(PYTHON_SAYS))/Python.h),)
PYTHON_HEADERS := $(if $(PYTHON_SAYS),$(call without,hakmem_py,no Python.h \
    for $(PYTHON),python3-dev),$(call without,hakmem_py,no $(PYTHON),python3-dev))
endif
endif
PYTHON_DIR = $(BUILD)/python-$(word 1,$(PYTHON_SAYS))
PYTHON_MODULE = $(PYTHON_DIR)/hakmem_py/_hakmem$(word 3,$(PYTHON_SAYS))
PYTHON_OBJECTS = $(patsubst adapters/python/src/%.c,$(PYTHON_DIR)/obj/%.o, \
    $(wildcard adapters/python/src/*.c))

CHECKS += test-python test-python-suite
DEMOS += demo-python
DEPS += python
DEPS_test += python
DEPS_demo += python

.PHONY: python wheel wheels check-python check-pythons check-python-loans check-python-profile check-python-suite \
    check-python-suite-quick check-python-install bench-python bench-python-run \
    check-python-trixie check-python-testing test-python test-python-suite \
    demo-python python-headers

python: $(PYTHON_MODULE) ## use: build hakmem_py for PYTHON, into $(BUILD)/python-VERSION
	$(Q)cp adapters/python/hakmem_py/*.py* adapters/python/hakmem_py/py.typed \
	    $(PYTHON_DIR)/hakmem_py
	$(Q)$(PYTHON) -m compileall -q $(PYTHON_DIR)/hakmem_py

python-headers:
	@$(or $(PYTHON_HEADERS),:)

# Some of the interpreter's headers are not pedantic.
$(PYTHON_DIR)/obj/%.o: adapters/python/src/%.c $(STAMP) | python-headers
	$(SAY) CC "$< ($(word 1,$(PYTHON_SAYS)))"
	@mkdir -p $(@D)
	$(Q)$(COMPILE) -isystem $(word 2,$(PYTHON_SAYS)) -c $< -o $@

$(PYTHON_MODULE): $(CORE_OBJECTS) $(PYTHON_OBJECTS) \
    adapters/python/src/module.map
	$(SAY) LINK $@
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $(filter %.o,$^) -Wl,-z,nodelete \
	    -Wl,--version-script=adapters/python/src/module.map

wheel: ## use: the source archive and a wheel for PYTHON, into $(BUILD)/dist
	@.ci/install-deps python
	@adapters/python/build.sh $(PYTHON) $(BUILD)/dist

# PYTHONS: some, else every CPython that there is.
wheels: ## use: the same for each Python found, or for PYTHONS
	@.ci/install-deps python
	@adapters/python/wheels.sh $(BUILD)/dist $(PYTHONS)

# ---- tests --------------------------------------------------------------------

# The Lua module is used if `make lua` has built it.
check-python: python $(OTHER_PAGES) $(SHARED:%=$(BUILD)/%) ## test: test hakmem_py under PYTHON
	@PYTHONPATH=$(abspath $(PYTHON_DIR)) PAGES=$(abspath $(OTHER_PAGES)) \
	    LIBRARY=$(abspath $(BUILD)/libhakmem.so) \
	    LUA_MODULE=$(abspath $(BUILD)/lua/hakmem.so) $(PYTHON) -m unittest discover \
	    -s tests/python $(if $(filter 1,$(V)),-v) $(PYTHON_TESTS:%=-p '%.py')

check-pythons: ## test: the same under each Python found, or PYTHONS (minutes each)
	@.ci/install-deps python
	@MAKE='$(MAKE)' PYTHON_TESTS='$(PYTHON_TESTS)' tests/python/pythons.sh $(PYTHONS)

check-python-loans: ## test: the GIL's heap lent at every moment, for 20 s
	@$(MAKE) python PYTHON=$(PYTHON) BUILD=$(BUILD)/loans \
	    CFLAGS='$(CFLAGS) -DHAK_PY_EAGER=1'
	@PYTHONPATH=$(abspath $(BUILD)/loans/$(notdir $(PYTHON_DIR))) \
	    $(PYTHON) tests/python/loans.py 20

check-python-profile: python ## test: 1,000 profiles of Python code of every kind, and planted leaks 20 times
	@PYTHONPATH=$(abspath $(PYTHON_DIR)) PROFILES=1000 ROUNDS=20 \
	    $(PYTHON) tests/python/test_profile.py Profile

# SUITE_ARGS goes to suite.py: SUITE_ARGS='test_gc test_multiprocessing_*'.
check-python-suite: python ## test: PYTHON's own tests on hakmem_py, failures as without it
	@$(PYTHON) tests/python/suite.py --hook $(PYTHON_DIR) --python $(PYTHON) \
	    --work $(BUILD)/python-suite $(SUITE_ARGS)

check-python-suite-quick: python ## test: the shorter ones of them
	@$(PYTHON) tests/python/suite.py --hook $(PYTHON_DIR) --python $(PYTHON) \
	    --work $(BUILD)/python-suite --quick $(SUITE_ARGS)

# With every CPython there is, or with PYTHONS.
check-python-install: ## test: build, install and remove the wheel in fresh environments
	@.ci/install-deps python
	@tests/python/install.sh $(PYTHONS)

# trixie: Debian 13, Python 3.13; testing: 3.14.
check-python-trixie check-python-testing: check-python-%: ## test: hakmem_py under another Debian's Python, in a chroot (root, 1 GB)
	@.ci/install-deps chroot
	@tests/python/debian.sh $* $(BUILD)/$*

test-python:
	@$(MAKE) check-python PYTHON=$(STOCK_PYTHON)

test-python-suite:
	@$(MAKE) check-python-suite-quick PYTHON=$(STOCK_PYTHON)

# ---- benchmarks ---------------------------------------------------------------

# BENCH_ARGS goes to python_report.py: '--insn', '--memory', '--rounds 9'.
bench-python: ## bench: Python programs on HAKMEM, stock Python and other allocators
	@.ci/install-deps bench python
	@$(MAKE) bench-python-run PYTHON=$(STOCK_PYTHON)

bench-python-run: python
	@$(PYTHON) bench/python_report.py --hook $(PYTHON_DIR) \
	    --python $(PYTHON) --csv $(BUILD)/bench-python.csv $(BENCH_ARGS)

demo-python:
	@$(MAKE) bench-python-run PYTHON=$(STOCK_PYTHON) BENCH_ARGS=--quick
	$(call demo_profile,python,$(STOCK_PYTHON))
