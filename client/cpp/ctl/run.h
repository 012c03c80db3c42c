// semsharectl as a function: what main() calls and tests call.
// Not thread-safe with respect to the streams it is given.
#ifndef SEMSHARE_CLIENT_CPP_CTL_RUN_H_
#define SEMSHARE_CLIENT_CPP_CTL_RUN_H_

#include <iosfwd>
#include <string>
#include <vector>

namespace semshare::client::ctl {

// Runs one command line (without the program's name) and returns the exit code: 0 success,
// 1 failure, 2 wrong usage. Results go to `out`, errors to `err`.
int Run(const std::vector<std::string>& words, std::ostream& out, std::ostream& err);

}  // namespace semshare::client::ctl

#endif  // SEMSHARE_CLIENT_CPP_CTL_RUN_H_
