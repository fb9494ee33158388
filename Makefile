# A dozen short targets over CMake. `make help` lists them.
#   LLMSCHED_WERROR=1      warnings are errors (CI sets it)
#   JOBS=2                 parallel compile and test jobs
#   BUILD=build            the release build's folder

BUILD ?= build
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
FUZZ_SECONDS ?= 60
OUT ?= .
WERROR = -DLLMSCHED_WERROR=$(if $(LLMSCHED_WERROR),ON,OFF)
# -O1: a model under the sanitizers at -O0 takes minutes.
SAN = -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS_DEBUG="-O1 -g" -DLLMSCHED_SANITIZE=
# Not under ThreadSanitizer: pandas_reads_csv runs a bench as test_bench does, on the real model, to
# read the files with pandas; quality measures rounding in passes that test_smollm2 makes too. There is
# nothing more for the sanitizer to see in their 4 and 8 minutes.
NOT_TSAN = ^test_(pandas_reads_csv|quality)$$

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := build
.PHONY: help deps deps-test build model bench bench-client bench-engine bench-kernels bench-peers test \
	test-full test-vllm test-san test-tsan fuzz lint format clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' Makefile

deps: ## install what build and bench need (Debian; else print it)
	@scripts/deps.sh build

deps-test: ## install what test, test-san, test-tsan, fuzz and lint need
	@scripts/deps.sh build test lint

build: deps ## release build: build/llmsched (the default)
	@cmake --log-level=NOTICE -S . -B $(BUILD) $(WERROR) -DLLMSCHED_TESTS=OFF
	@cmake --build $(BUILD) -j $(JOBS)

model: deps ## fetch the real model, SmolLM2-135M-Instruct, into models/
	@python3 scripts/fetch_model.py

bench-client: build ## the error of the measuring client, against a server with a timetable
	$(BUILD)/llmsched selftest client $(ARGS)

bench: build model ## the main job: every scheduler on the real model (OUT=folder ARGS="...")
	$(BUILD)/llmsched bench --output-dir "$(OUT)" $(ARGS)

bench-engine: build model ## the engine's speed by dtype and load, beside the machine's limit (ARGS="...")
	$(BUILD)/llmsched bench-engine $(ARGS)

bench-kernels: ## kernels: speed and error, beside oneDNN where installed (ARGS="avx2:int8 avx2:rows")
	@scripts/deps.sh build test
	@cmake --log-level=NOTICE -S . -B $(BUILD) $(WERROR) -DLLMSCHED_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS) --target bench_kernels
	$(BUILD)/tests/bench_kernels $(ARGS)

bench-peers: build model ## beside llama.cpp and vLLM, where set up (ARGS="--only engine --rounds 3")
	@python3 tests/vllm/peers.py --llmsched $(BUILD)/llmsched $(ARGS)

test: model ## build and run all tests
	@scripts/deps.sh build test
	@scripts/openai_venv.sh build/venv-openai
	@cmake --log-level=NOTICE -S . -B $(BUILD) $(WERROR) -DLLMSCHED_TESTS=ON
	@cmake --build $(BUILD) -j $(JOBS)
	@scripts/run_tests.sh $(BUILD) $(JOBS)

test-full: ## the same with the heavy cases, printing what they did
	@LLMSCHED_TEST_FULL=1 $(MAKE) test

test-vllm: build model ## a real vLLM on the CPU as peer and oracle (7 GB outside; ARGS="--only ...")
	@python3 tests/vllm/run.py $(BUILD)/llmsched $(ARGS)

test-san: model ## all tests under AddressSanitizer and UBSan
	@scripts/deps.sh build test
	@scripts/openai_venv.sh build/venv-openai
	@cmake --log-level=NOTICE -S . -B $(BUILD)-san $(WERROR) $(SAN)address
	@cmake --build $(BUILD)-san -j $(JOBS)
	@scripts/run_tests.sh $(BUILD)-san $(JOBS)

test-tsan: model ## all tests under ThreadSanitizer
	@scripts/deps.sh build test
	@scripts/openai_venv.sh build/venv-openai
	@cmake --log-level=NOTICE -S . -B $(BUILD)-tsan $(WERROR) $(SAN)thread
	@cmake --build $(BUILD)-tsan -j $(JOBS)
	@scripts/run_tests.sh $(BUILD)-tsan $(JOBS) '$(NOT_TSAN)'

fuzz: ## every libFuzzer target for FUZZ_SECONDS=60 each (clang)
	@scripts/deps.sh build test lint
	@CC=clang cmake --log-level=NOTICE -S . -B $(BUILD)-fuzz $(WERROR) $(SAN)address -DLLMSCHED_FUZZ=ON -DLLMSCHED_TESTS=OFF
	@cmake --build $(BUILD)-fuzz -j $(JOBS)
	@scripts/run_fuzz.sh $(BUILD)-fuzz $(FUZZ_SECONDS)

lint: ## clang-format, banned calls, cppcheck, clang-tidy
	@scripts/deps.sh build test lint
	@CC=clang cmake --log-level=NOTICE -S . -B $(BUILD)-lint -DLLMSCHED_FUZZ=ON -DLLMSCHED_TESTS=ON
	@scripts/lint.sh $(BUILD)-lint $(JOBS)

format: ## rewrite the sources in the project's format
	@git ls-files -z '*.c' '*.h' | xargs -0 clang-format -i

clean: ## remove the build folders (models/ and results stay)
	rm -rf $(BUILD) $(BUILD)-san $(BUILD)-tsan $(BUILD)-fuzz $(BUILD)-lint $(BUILD)-clang
