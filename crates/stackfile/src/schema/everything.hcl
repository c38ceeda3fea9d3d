variable "size" {
  type    = number
  default = 1
  validation {
    condition     = var.size > 0
    error_message = "it must be positive"
  }
}

locals {
  ports = { admin = 9000 }
}

environment "production" { variables = { size = 2 } }

module "m" {
  source = "./m"
  a      = 1
}

output "size" { value = var.size }

image "web" {
  from = "scratch"
  copy "x" { to = "/x" }
  file "/y" { content = "y" }
  link "/z" { to = "/y" }
  directory "/d" {}
  run { command = "true" }
  provision "shell" { inline = ["true"] }
  provision "ansible" { playbook = "x" }
  provision "puppet" { manifest = "x" }
}

image "debian" {
  base "debian" {
    suite = "bookworm"
    lock  = "x.lock"
  }
}

image "built" {
  build { dockerfile = "x" }
}

service "web" {
  for_each = ["a"]
  image    = image.web
  config "/etc/a" { content = "a" }
  secret "/run/b" { from = secret.b }
  volume "/c" {
    name   = "c"
    shared = true
  }
  port "http" { container = 80 }
  dynamic "port" {
    for_each = local.ports
    labels   = [port.key]
    content {
      container = port.value
    }
  }
  limits {
    pids = 10
  }
  health {
    http {
      path = "/"
    }
  }
  route {
    host = "a"
    rate_limit {
      requests = 1
    }
    error_page "503" {
      body = "a"
    }
    tls {
      acme = true
      clients {
        authorities = "/ca.pem"
      }
    }
  }
  route {
    path = "/old"
    redirect {
      to = "/new{rest}"
    }
  }
  route {
    path = "/ping"
    respond {
      body = "pong"
    }
  }
  traffic {
    sticky {
    }
    eject {
    }
  }
  rollout "canary" {
    steps = [{ weight = 5 }]
  }
}

service "grpc" {
  image = image.web
  port "http" { container = 80 }
  health {
    grpc {
    }
  }
}

service "rolling" {
  image = image.web
  port "http" { container = 80 }
  health {
    tcp {
    }
  }
  rollout "rolling" {
  }
}

job "migrate" {
  image = image.web
}
