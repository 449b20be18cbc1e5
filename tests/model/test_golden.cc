/* Loss, gradient norm and every gradient of step 1 of the float64 reference runs, for several
 * (T, stages). Limits: DESIGN.md, the contract, fp32. */
#include "model/golden.h"
#include <algorithm>
#include <cmath>
#include <gtest/gtest.h>

namespace
{

struct Mesh {
    int T;
    std::vector<int> first_units;
    int is_sequence_parallel = 0;
};

struct Case {
    const char *name;
    std::vector<Mesh> meshes;
};

class GoldenRun : public testing::TestWithParam<Case>
{
};

void expect_golden(const Golden &golden, const StepResult &got)
{
    const auto counted = (double)golden.counted_tokens;
    EXPECT_LT(std::fabs(got.loss_sum / counted / golden.loss - 1), 2e-6);
    EXPECT_LT(std::fabs(std::sqrt(got.grad_square_sum) / counted / golden.grad_norm - 1), 2e-5);
    ASSERT_EQ(golden.grads.size(), got.grads.size());
    for (const auto &[name, want] : golden.grads) {
        const auto grad = got.grads.find(name);
        ASSERT_NE(got.grads.end(), grad) << name;
        std::vector<float> mean;
        for (const float g : grad->second)
            mean.push_back((float)((double)g / counted));
        EXPECT_LT(relative_difference(mean, want), 1e-5) << name;
    }
}

TEST_P(GoldenRun, FirstStep)
{
    Golden golden = read_golden(golden_folder() / GetParam().name);
    const auto is_counted = [](int32_t target) { return target >= 0; };
    ASSERT_EQ(golden.counted_tokens,
              std::count_if(golden.step.targets.begin(), golden.step.targets.end(), is_counted));
    for (const Mesh &mesh : GetParam().meshes) {
        SCOPED_TRACE("T = " + std::to_string(mesh.T) + ", " +
                     std::to_string(mesh.first_units.size()) + " stages" +
                     (mesh.is_sequence_parallel ? ", cut rows" : ""));
        golden.step.T = mesh.T;
        golden.step.first_units = mesh.first_units;
        golden.step.is_sequence_parallel = mesh.is_sequence_parallel;
        const StepResult got = run_step(golden.step);
        if (HasFatalFailure())
            return;
        expect_golden(golden, got);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Model, GoldenRun,
    testing::Values(
        Case{"gpt2-tied",
             {{1, {0}}, {2, {0, 5}}, {4, {0}}, {8, {0, 3, 6, 9}}, {2, {0, 5}, 1}, {4, {0}, 1}}},
        Case{"llama-gqa",
             {{1, {0}}, {2, {0, 5}}, {4, {0}}, {8, {0, 3, 6, 9}}, {2, {0, 5}, 1}, {4, {0}, 1}}},
        Case{"llama-tied-odd",
             {{1, {0}}, {2, {0, 2, 5}}, {4, {0}}, {8, {0, 7}}, {2, {0, 5}, 1}, {4, {0}, 1}}},
        Case{"gpt2-masked",
             {{1, {0}}, {2, {0, 3}}, {4, {0}}, {8, {0, 1, 5}}, {2, {0, 3}, 1}, {4, {0}, 1}}}),
    [](const testing::TestParamInfo<Case> &which) {
        std::string name = which.param.name;
        std::replace(name.begin(), name.end(), '-', '_');
        return name;
    });

} // namespace

int main(int argc, char **argv)
{
    testing::InitGoogleTest(&argc, argv);
    if (!std::filesystem::is_directory(golden_folder())) {
        std::printf("skipped: no reference runs at %s; set TRIVET_SHARED\n",
                    golden_folder().c_str());
        return 77;
    }
    return RUN_ALL_TESTS();
}
