// semsharectl: looks into a semshare broker from the command line. See --help.
#include <iostream>
#include <string>
#include <vector>

#include "client/cpp/ctl/run.h"

int main(int argc, char** argv) {
  return semshare::client::ctl::Run(std::vector<std::string>(argv + 1, argv + argc), std::cout,
                                    std::cerr);
}
